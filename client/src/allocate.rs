//! Which queues of a topic a member of a consumer group reads.

use raftmq_proto::body::MessageQueue;

/// RocketMQ's default, `AVG`: neighbouring queues in equal shares, the first members take one more.
///
/// Every member computes this alone, so all must use the same order: both slices are sorted. Returns
/// nothing when `client_id` is not among `client_ids`.
#[must_use]
pub fn averagely(
    client_id: &str,
    client_ids: &[String],
    queues: &[MessageQueue],
) -> Vec<MessageQueue> {
    let Some(index) = client_ids.iter().position(|id| id == client_id) else {
        return Vec::new();
    };
    let (share, rest) = (
        queues.len() / client_ids.len(),
        queues.len() % client_ids.len(),
    );
    let start = index * share + index.min(rest);
    let count = share + usize::from(index < rest);
    queues.iter().skip(start).take(count).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queues(count: i32) -> Vec<MessageQueue> {
        (0..count)
            .map(|queue_id| MessageQueue {
                topic: "T".to_owned(),
                broker_name: "B".to_owned(),
                queue_id,
            })
            .collect()
    }

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("c{n:03}")).collect()
    }

    fn shares(client_count: usize, queue_count: i32) -> Vec<Vec<i32>> {
        let (ids, queues) = (ids(client_count), queues(queue_count));
        ids.iter()
            .map(|id| {
                averagely(id, &ids, &queues)
                    .iter()
                    .map(|queue| queue.queue_id)
                    .collect()
            })
            .collect()
    }

    /// What Java's `AllocateMessageQueueAveragely` computes, with its own arithmetic.
    fn java(index: usize, clients: usize, queue_count: usize) -> (usize, usize) {
        let rest = queue_count % clients;
        let average = if queue_count <= clients {
            1
        } else if rest > 0 && index < rest {
            queue_count / clients + 1
        } else {
            queue_count / clients
        };
        let start = if rest > 0 && index < rest {
            index * average
        } else {
            index * average + rest
        };
        let range = average.min(queue_count.saturating_sub(start));
        (start, range)
    }

    #[test]
    fn shares_are_neighbours_and_the_first_take_more() {
        assert_eq!(shares(1, 4), [vec![0, 1, 2, 3]]);
        assert_eq!(shares(2, 4), [vec![0, 1], vec![2, 3]]);
        assert_eq!(shares(3, 4), [vec![0, 1], vec![2], vec![3]]);
        assert_eq!(shares(3, 8), [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]);
    }

    #[test]
    fn more_members_than_queues_leave_the_last_idle() {
        assert_eq!(shares(3, 2), [vec![0], vec![1], vec![]]);
        assert_eq!(shares(2, 0), [Vec::<i32>::new(), vec![]]);
    }

    #[test]
    fn a_stranger_gets_nothing() {
        assert!(averagely("x", &ids(2), &queues(4)).is_empty());
        assert!(averagely("x", &[], &queues(4)).is_empty());
    }

    proptest! {
        #[test]
        fn equals_java_s_and_covers_each_queue_once(clients in 1usize..40, count in 0i32..200) {
            let shares = shares(clients, count);
            for (index, share) in shares.iter().enumerate() {
                let (start, range) = java(index, clients, count as usize);
                let expected: Vec<i32> = (start..start + range).map(|id| id as i32).collect();
                prop_assert_eq!(share, &expected);
            }
            let all: Vec<i32> = shares.concat();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }
}
