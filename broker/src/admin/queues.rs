//! Bounds of queues (29, 30, 31, 32).

use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    GetEarliestMsgStoretimeRequestHeader, GetEarliestMsgStoretimeResponseHeader,
    GetMaxOffsetRequestHeader, GetMaxOffsetResponseHeader, GetMinOffsetRequestHeader,
    GetMinOffsetResponseHeader, SearchOffsetRequestHeader, SearchOffsetResponseHeader,
};
use raftmq_store::state::Boundary;

use super::{Admin, wire};
use crate::exchange::{Exchange, Outcome, Refusal};

impl Admin {
    /// 29.
    pub(crate) fn search_offset(&self, exchange: &Exchange) -> Outcome {
        let header: SearchOffsetRequestHeader = exchange.header()?;
        let boundary = match header.boundary_type.as_deref() {
            Some(text) if text.eq_ignore_ascii_case("upper") => Boundary::Upper,
            _ => Boundary::Lower,
        };
        let state = &self.group.store().state;
        let offset = state
            .offset_by_time(&header.topic, header.queue_id, header.timestamp, boundary)
            .map_err(|error| Refusal::error(error.to_string()))?;
        Ok(
            RemotingCommand::success().with_header(&SearchOffsetResponseHeader {
                offset: wire(offset),
            }),
        )
    }

    /// 30. The caller has confirmed that this member still leads.
    pub(crate) fn max_offset(&self, exchange: &Exchange) -> Outcome {
        let header: GetMaxOffsetRequestHeader = exchange.header()?;
        let bounds = self
            .group
            .store()
            .state
            .queue_bounds(&header.topic, header.queue_id);
        Ok(
            RemotingCommand::success().with_header(&GetMaxOffsetResponseHeader {
                offset: wire(bounds.max),
            }),
        )
    }

    /// 31.
    pub(crate) fn min_offset(&self, exchange: &Exchange) -> Outcome {
        let header: GetMinOffsetRequestHeader = exchange.header()?;
        let bounds = self
            .group
            .store()
            .state
            .queue_bounds(&header.topic, header.queue_id);
        Ok(
            RemotingCommand::success().with_header(&GetMinOffsetResponseHeader {
                offset: wire(bounds.min),
            }),
        )
    }

    /// 32.
    pub(crate) fn earliest_store_time(&self, exchange: &Exchange) -> Outcome {
        let header: GetEarliestMsgStoretimeRequestHeader = exchange.header()?;
        let state = &self.group.store().state;
        let min = state.queue_bounds(&header.topic, header.queue_id).min;
        let timestamp = state
            .store_time_at(&header.topic, header.queue_id, min)
            .ok()
            .flatten()
            .unwrap_or(-1);
        Ok(RemotingCommand::success()
            .with_header(&GetEarliestMsgStoretimeResponseHeader { timestamp }))
    }
}
