//! A group of three: any member takes any request, and a change of leader goes unnoticed.

use std::time::Duration;

use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{Header, PullMessageRequestHeader, SendMessageResponseHeader};
use raftmq_proto::message::pull_sys_flag::{SUBSCRIPTION, SUSPEND};
use raftmq_proto::message::record::records;

use crate::calls::{pull, pull_header, query, send, update};
use crate::support::{Member, within};

/// The leader, and the others.
fn parts(members: [Member; 3]) -> (Member, Vec<Member>) {
    let mut members = Vec::from(members);
    let at = members
        .iter()
        .position(Member::leads)
        .expect("each member knows its part");
    (members.swap_remove(at), members)
}

fn offset_of(answer: &RemotingCommand) -> i64 {
    assert_eq!(
        (answer.code, answer.remark.as_deref()),
        (response::SUCCESS, None)
    );
    SendMessageResponseHeader::decode(&answer.ext_fields)
        .unwrap()
        .queue_offset
}

/// Sends, pulls, long polls and offsets give the same answers on every member.
#[tokio::test(flavor = "multi_thread")]
async fn any_member_takes_any_request() {
    let (leader, others) = parts(Member::start_three().await);
    let follower = &others[0];
    for n in 0..3 {
        assert_eq!(
            offset_of(&send(follower, "T", 0, vec![n]).await),
            i64::from(n)
        );
    }
    for member in [&leader, follower, &others[1]] {
        let (answer, header) = pull(member, &pull_header("T", 0)).await;
        assert_eq!(
            (
                answer.code,
                header.next_begin_offset,
                header.suggest_which_broker_id
            ),
            (0, 3, 0)
        );
        assert_eq!(records(&answer.body.into_bytes()).count(), 3);
        // Offsets are corrected by the leader, whoever was asked.
        let (answer, header) = pull(member, &pull_header("T", 99)).await;
        assert_eq!(
            (answer.code, header.next_begin_offset),
            (response::PULL_OFFSET_MOVED, 3)
        );
    }
    assert_eq!(update(follower, 2).await, response::SUCCESS);
    assert_eq!(query(&leader, None).await.1.as_deref(), Some("2"));
    assert_eq!(query(&others[1], None).await.1.as_deref(), Some("2"));

    let waiting = PullMessageRequestHeader {
        sys_flag: SUBSCRIPTION | SUSPEND,
        suspend_timeout_millis: 20_000,
        ..pull_header("T", 3)
    };
    let (woken, sent) = tokio::join!(pull(follower, &waiting), async {
        leader
            .until("a pull is held", |info| {
                info["pullThreadPoolQueueSize"] == "1"
            })
            .await;
        send(&others[1], "T", 0, vec![3]).await
    });
    assert_eq!(
        (woken.0.code, woken.1.next_begin_offset, offset_of(&sent)),
        (0, 4, 3)
    );
    let unknown = follower.ask(RemotingCommand::request(9999)).await;
    assert_eq!(unknown.code, response::REQUEST_CODE_NOT_SUPPORTED);
    for member in [leader].into_iter().chain(others) {
        member.stop().await;
    }
}

/// While the leader stops gracefully, clients that stay with another member see no failed send, and no offset is used
/// twice or left out. Saved consumer offsets and topics are there under the new leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_planned_change_of_leader_fails_no_send() {
    let (leader, others) = parts(Member::start_three().await);
    assert_eq!(offset_of(&send(&others[0], "T", 0, vec![0]).await), 0);
    pull(&others[0], &pull_header("T", 0)).await;
    assert_eq!(update(&others[0], 1).await, response::SUCCESS);
    let stopped = tokio::spawn(leader.stop());
    for n in 1..200u8 {
        let answer = within(
            "an answer",
            send(&others[usize::from(n % 2)], "T", 0, vec![n]),
        )
        .await;
        assert_eq!(offset_of(&answer), i64::from(n));
    }
    within("a stop", stopped).await.unwrap();
    assert!(others.iter().any(Member::leads));
    let (answer, header) = pull(&others[1], &pull_header("T", 180)).await;
    assert_eq!((answer.code, header.max_offset), (0, 200));
    assert_eq!(query(&others[1], None).await.1.as_deref(), Some("1"));
    for member in others {
        member.stop().await;
    }
}

/// With one member left of three nothing is stored or answered from memory: requests are refused after a while, and pulls are served from what is applied.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_acknowledged() {
    let (leader, mut others) = parts(Member::start_three().await);
    assert_eq!(offset_of(&send(&leader, "T", 0, vec![0]).await), 0);
    let last = others.remove(0);
    // Acknowledged means applied on the leader; the others learn of it a moment later.
    let index = |text: &str| text.parse::<u64>().unwrap();
    let applied = index(&leader.info().await["raftAppliedIndex"]);
    last.until("the entry is applied", |info| {
        index(&info["raftAppliedIndex"]) >= applied
    })
    .await;
    within("stops", async {
        tokio::join!(leader.stop(), others.remove(0).stop())
    })
    .await;
    let start = std::time::Instant::now();
    let answer = send(&last, "T", 0, vec![1]).await;
    assert!(
        matches!(
            answer.code,
            response::SYSTEM_BUSY | response::SYSTEM_ERROR | response::SERVICE_NOT_AVAILABLE
        ),
        "{answer:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_ne!(query(&last, None).await.0, response::SUCCESS);
    let (answer, _) = pull(&last, &pull_header("T", 0)).await;
    assert_eq!(answer.code, response::SUCCESS);
    let info = last
        .ask(RemotingCommand::request(request::GET_BROKER_RUNTIME_INFO))
        .await;
    assert_eq!(info.code, response::SUCCESS);
    last.stop().await;
}
