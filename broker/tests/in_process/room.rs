//! Room on the disk: what retention gives up, and what goes on when there is none left.

use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{GetMinOffsetRequestHeader, GetMinOffsetResponseHeader, Header};
use raftmq_proto::message::record::records;

use crate::calls::{pull, pull_header, query, send, update};
use crate::support::Member;

const MIB: usize = 1024 * 1024;

async fn min_offset(member: &Member) -> i64 {
    let header = GetMinOffsetRequestHeader {
        topic: "T".to_owned(),
        ..GetMinOffsetRequestHeader::default()
    };
    let answer = member
        .ask(RemotingCommand::request(request::GET_MIN_OFFSET).with_header(&header))
        .await;
    GetMinOffsetResponseHeader::decode(&answer.ext_fields)
        .unwrap()
        .offset
}

/// Sends so much that two segments of 16 MiB are behind the one being written.
async fn fill(member: &Member) {
    for n in 0..12u8 {
        let answer = send(member, "T", 0, vec![n; 3 * MIB]).await;
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    }
}

async fn wait_for_trim(member: &Member) {
    member
        .until("the log is trimmed", |info| {
            !info["retentionLastTrim"].is_empty()
        })
        .await;
}

/// Expired segments go at the hour: minima move, a consumer below is corrected as in the original, what is kept can be
/// read, and the same holds after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn expired_segments_go_and_minima_move() {
    let hours: Vec<String> = (0..24).map(|hour| hour.to_string()).collect();
    let more = format!(
        "fileReservedTime=0\ndeleteWhen={}\ncleanResourceInterval=100\n",
        hours.join(";")
    );
    let mut member = Member::start(&more).await;
    fill(&member).await;
    member
        .until("both closed segments are given up", |info| {
            info["commitLogMinOffset"] == (2 * 16 * MIB).to_string()
        })
        .await;
    for _ in 0..2 {
        let min = min_offset(&member).await;
        assert!((1..12).contains(&min), "{min}");
        let (answer, header) = pull(&member, &pull_header("T", 0)).await;
        assert_eq!(
            (answer.code, header.next_begin_offset, header.min_offset),
            (response::PULL_OFFSET_MOVED, min, min)
        );
        let (answer, _) = pull(&member, &pull_header("T", min)).await;
        let bytes = answer.body.into_bytes();
        let record = records(&bytes).next().unwrap().unwrap();
        assert_eq!(i64::from(record.body()[0]), min);
        member = member.restart().await;
    }
    member.stop().await;
}

/// The files go on every member, down to the same position, and a consumer reads on.
#[tokio::test(flavor = "multi_thread")]
async fn every_member_gives_room_back() {
    let hours: Vec<String> = (0..24).map(|hour| hour.to_string()).collect();
    let more = format!(
        "fileReservedTime=0\ndeleteWhen={}\ncleanResourceInterval=100\n",
        hours.join(";")
    );
    let members = Member::start_three_with(&more).await;
    fill(&members[0]).await;
    for member in &members {
        let dir = member.log().options().dir.clone();
        let first_file = || {
            let folder = std::fs::read_dir(&dir).unwrap();
            let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.len() == 20).min().unwrap()
        };
        member
            .until("its first two segments go", |info| {
                info["commitLogMinOffset"] == (2 * 16 * MIB).to_string()
                    && first_file() == format!("{:020}", 2 * 16 * MIB)
            })
            .await;
    }
    let min = min_offset(&members[1]).await;
    let (answer, _) = pull(&members[2], &pull_header("T", min)).await;
    assert_eq!(answer.code, response::SUCCESS);
    for member in members {
        member.stop().await;
    }
}

/// Nothing goes before its time, unless an operator asks: then what has expired goes at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_need_not_wait_for_the_hour() {
    // Half a day away from now, in the machine's zone.
    let hour = (local_hour() + 12) % 24;
    // However full the disk is on which this runs.
    let more = format!(
        "fileReservedTime=0\ndeleteWhen={hour}\ncleanResourceInterval=100\ndiskMaxUsedSpaceRatio=95\n\
         cleanFileForciblyEnable=false\n"
    );
    let member = Member::start(&more).await;
    fill(&member).await;
    assert_eq!(member.info().await["retentionLastTrim"], "");
    assert_eq!(min_offset(&member).await, 0);
    for code in [
        request::DELETE_EXPIRED_COMMITLOG,
        request::CLEAN_EXPIRED_CONSUMEQUEUE,
        request::CLEAN_UNUSED_TOPIC,
    ] {
        let answer = member.ask(RemotingCommand::request(code)).await;
        assert_eq!(answer.code, response::SUCCESS, "{code}");
    }
    wait_for_trim(&member).await;
    assert!(min_offset(&member).await > 0);
    member.stop().await;
}

fn local_hour() -> u8 {
    let date = std::process::Command::new("date").arg("+%H").output();
    let text = String::from_utf8(date.unwrap().stdout).unwrap();
    text.trim().parse().unwrap()
}

/// While the disk is too full, sends are refused with a code on which producers try another broker and a text that
/// names the reason; reads, saved offsets and new topics go on, and so do sends once there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_sends_only() {
    let member = Member::start("cleanResourceInterval=3600000\n").await;
    assert_eq!(send(&member, "T", 0, vec![0]).await.code, response::SUCCESS);
    pull(&member, &pull_header("T", 0)).await;
    let log = member.log();
    log.set_full(Some("the disk of /x is 91.0 % used, limit 90 %".into()));
    for topic in ["T", "New"] {
        let answer = send(&member, topic, 0, vec![1]).await;
        assert_eq!(answer.code, response::SERVICE_NOT_AVAILABLE);
        let remark = answer.remark.unwrap();
        assert!(
            remark.contains("the disk of /x is 91.0 % used, limit 90 %"),
            "{remark}"
        );
    }
    let info = member.info().await;
    assert!(info["storeFull"].starts_with("the disk of /x"));
    let (answer, _) = pull(&member, &pull_header("T", 0)).await;
    assert_eq!(answer.code, response::SUCCESS);
    assert_eq!(update(&member, 1).await, response::SUCCESS);
    assert_eq!(query(&member, None).await.1.as_deref(), Some("1"));
    log.set_full(None);
    for topic in ["T", "New"] {
        let answer = send(&member, topic, 0, vec![1]).await;
        assert_eq!(answer.code, response::SUCCESS);
    }
    drop(log);
    let member = member.restart().await;
    assert_eq!(query(&member, None).await.1.as_deref(), Some("1"));
    member.stop().await;
}
