//! Messages found by key (12) and by physical offset (33). RocketMQ: `QueryMessageProcessor`.

use bytes::Bytes;
use raftmq_proto::code::response;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    QueryMessageRequestHeader, QueryMessageResponseHeader, ViewMessageRequestHeader,
};
use raftmq_proto::message::record::RecordRef;
use raftmq_store::State;

use super::{Admin, wire};
use crate::exchange::{Exchange, Outcome, Refusal, header};

/// Marks a query for a unique key: how many messages it may find is the broker's choice.
const UNIQUE_KEY_QUERY: &str = "_UNIQUE_KEY_QUERY";
/// Bytes of one answer, far below the 16 MiB that a frame may have; one message always passes.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Admin {
    /// 12. The index is read from the disk, so this does not run on the connection's task.
    pub(crate) async fn query_messages(&self, request: &RemotingCommand) -> Outcome {
        let header: QueryMessageRequestHeader = header(request)?;
        let unique = request.ext_fields.get(UNIQUE_KEY_QUERY) == Some("true");
        let max = match (unique, usize::try_from(header.max_num)) {
            (true, _) => self.query.unique_max,
            (false, Ok(max)) => max.min(self.query.max),
            (false, Err(_)) => 0,
        };
        let store = self.group.store().clone();
        let find = move || find(&store.state, &header, max);
        let found = crate::runtime::spawn_blocking(find).await;
        let (records, found) = found
            .map_err(|error| Refusal::error(error.to_string()))?
            .map_err(|error| Refusal::error(error.to_string()))?;
        if records.is_empty() {
            let mut answer = RemotingCommand::failure(
                response::QUERY_NOT_FOUND,
                "can not find message, maybe time range not correct",
            );
            answer = answer.with_header(&found);
            return Ok(answer);
        }
        Ok(RemotingCommand::success()
            .with_header(&found)
            .with_body(records))
    }

    /// Whether 33 can be answered here: any member has the record, once it has applied it.
    pub(crate) fn has_message(&self, exchange: &Exchange) -> bool {
        self.record(exchange).is_ok_and(|record| record.is_ok())
    }

    /// 33.
    pub(crate) fn view_message(&self, exchange: &Exchange) -> Outcome {
        match self.record(exchange)? {
            Ok(record) => Ok(RemotingCommand::success().with_body(record)),
            Err(offset) => Err(Refusal::error(format!(
                "can not find message by the offset, {offset}"
            ))),
        }
    }

    /// The record asked for, or its physical offset when there is none.
    fn record(&self, exchange: &Exchange) -> Result<Result<Bytes, i64>, Refusal> {
        let header: ViewMessageRequestHeader = exchange.header()?;
        let offset = u64::try_from(header.offset).ok();
        let record = offset.and_then(|offset| self.group.store().state.record_at(offset).ok());
        let whole = record.filter(|record| RecordRef::parse(record).is_ok());
        Ok(whole.ok_or(header.offset))
    }
}

/// The records, oldest first as in the original, and how far the index is.
fn find(
    state: &State,
    header: &QueryMessageRequestHeader,
    max: usize,
) -> raftmq_store::Result<(Vec<Bytes>, QueryMessageResponseHeader)> {
    let (begin, end) = (header.begin_timestamp, header.end_timestamp);
    let found = state.query(&header.topic, &header.key, max, begin, end)?;
    let mut records = Vec::new();
    let mut bytes = 0;
    // The newest go first when there are too many.
    for offset in &found.offsets {
        // Retention may have been quicker.
        let Ok(record) = state.record_at(*offset) else {
            continue;
        };
        bytes += record.len();
        if bytes > ANSWER_BYTES_MAX && !records.is_empty() {
            break;
        }
        records.push(record);
    }
    records.reverse();
    let header = QueryMessageResponseHeader {
        index_last_update_timestamp: found.last_update_ms,
        index_last_update_phyoffset: wire(found.last_update_offset),
    };
    Ok((records, header))
}
