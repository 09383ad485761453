//! What a broker registers with (103).
//!
//! Compressed form: a zlib stream of
//!
//! | size | field |
//! |---|---|
//! | 4 + n | data version as JSON |
//! | 4 | number of topics, then each 4 + n: `name readQueues writeQueues perm SINGLE_TAG {attributes}` |
//! | 4 + n | filter servers as JSON |
//! | 4 | from 5.0: number of static topics, then each 4 + n as JSON |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    DataVersion, TopicConfig, TopicConfigSerializeWrapper, TopicFilterType, TopicQueueMappingInfo,
    from_json, json_bodies, to_json,
};
use crate::header::shorten;
use crate::json::JsonError;
use crate::message::compression::{CompressionError, compress_zlib, decompress_zlib};
use crate::read::Reader;

/// First version whose compressed form has the static topics: RocketMQ 5.0.0.
const VERSION_5_0_0: i32 = 413;

/// Most bytes a compressed registration may unpack to: some hundred thousand topics.
pub const REGISTER_BODY_MAX: usize = 64 * 1024 * 1024;

/// Topics and filter servers of a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    /// Always empty.
    pub filter_server_list: Vec<String>,
    /// The topics.
    pub topic_config_serialize_wrapper: TopicConfigSerializeWrapper,
}

/// Why a registration cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RegisterBodyError {
    /// The stream is damaged or too long.
    #[error("registration: {0}")]
    Compression(#[from] CompressionError),
    /// A JSON part cannot be read.
    #[error("registration: {0}")]
    Json(#[from] JsonError),
    /// The unpacked bytes end early.
    #[error("registration ends inside its {0}")]
    Truncated(&'static str),
    /// A topic's line cannot be read.
    #[error("registration has the topic line '{0}'")]
    TopicLine(String),
}

impl RegisterBrokerBody {
    /// Reads the body of a request made by a broker of this protocol version.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn decode(
        body: &[u8],
        compressed: bool,
        version: i32,
    ) -> Result<RegisterBrokerBody, RegisterBodyError> {
        if !compressed {
            return Ok(from_json(body)?);
        }
        let unpacked = decompress_zlib(body, REGISTER_BODY_MAX)?;
        let mut read = Reader::new(&unpacked);
        let mut part = |name| read.sized_i32().ok_or(RegisterBodyError::Truncated(name));
        let mut wrapper = TopicConfigSerializeWrapper {
            data_version: from_json::<DataVersion>(part("data version")?)?,
            ..TopicConfigSerializeWrapper::default()
        };
        let topics = read
            .u32()
            .ok_or(RegisterBodyError::Truncated("topic count"))?;
        for _ in 0..topics {
            let line = read
                .sized_i32()
                .ok_or(RegisterBodyError::Truncated("topics"))?;
            let topic = topic_from_line(&String::from_utf8_lossy(line))?;
            wrapper
                .topic_config_table
                .insert(topic.topic_name.clone(), topic);
        }
        let filters = read
            .sized_i32()
            .ok_or(RegisterBodyError::Truncated("filter servers"))?;
        // Java goes on without the list when it cannot be read.
        let filter_server_list = from_json(filters).unwrap_or_default();
        if version >= VERSION_5_0_0 {
            let count = read
                .u32()
                .ok_or(RegisterBodyError::Truncated("static topic count"))?;
            let mut mappings = BTreeMap::new();
            for _ in 0..count {
                let json = read
                    .sized_i32()
                    .ok_or(RegisterBodyError::Truncated("static topics"))?;
                let info: TopicQueueMappingInfo = from_json(json)?;
                mappings.insert(info.topic.clone().unwrap_or_default(), info);
            }
            wrapper.topic_queue_mapping_info_map = Some(mappings);
        }
        Ok(RegisterBrokerBody {
            filter_server_list,
            topic_config_serialize_wrapper: wrapper,
        })
    }

    /// Writes the compressed form, as version 5 and later read it.
    pub fn encode_compressed(&self) -> Vec<u8> {
        let wrapper = &self.topic_config_serialize_wrapper;
        let mut out = Vec::new();
        put_sized(&mut out, &to_json(&wrapper.data_version));
        put_len(&mut out, wrapper.topic_config_table.len());
        for topic in wrapper.topic_config_table.values() {
            put_sized(&mut out, topic_to_line(topic).as_bytes());
        }
        put_sized(&mut out, &to_json(&self.filter_server_list));
        let mappings = wrapper.topic_queue_mapping_info_map.iter().flatten();
        put_len(&mut out, mappings.clone().count());
        for (_, info) in mappings {
            put_sized(&mut out, &to_json(info));
        }
        compress_zlib(&out, 9)
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend(bytes);
}

fn topic_to_line(topic: &TopicConfig) -> String {
    let TopicConfig {
        topic_name,
        read_queue_nums,
        write_queue_nums,
        perm,
        ..
    } = topic;
    let filter = topic.topic_filter_type;
    let attributes = to_json(&topic.attributes);
    let attributes = String::from_utf8_lossy(&attributes);
    format!("{topic_name} {read_queue_nums} {write_queue_nums} {perm} {filter} {attributes}")
}

fn topic_from_line(line: &str) -> Result<TopicConfig, RegisterBodyError> {
    let error = || RegisterBodyError::TopicLine(shorten(line).into_owned());
    let mut parts = line.splitn(6, ' ');
    let mut part = || parts.next().ok_or_else(error);
    let topic_name = part()?.to_owned();
    let mut number = || part()?.parse::<i32>().ok().ok_or_else(error);
    let (read_queue_nums, write_queue_nums, perm) = (number()?, number()?, number()?);
    let filter = part()?;
    // Brokers before 5.0 end here; as in Java, attributes that cannot be read are left out.
    let attributes = parts.next().map(str::as_bytes).map(from_json);
    Ok(TopicConfig {
        topic_name,
        read_queue_nums,
        write_queue_nums,
        perm,
        topic_filter_type: TopicFilterType::from_name(filter).ok_or_else(error)?,
        attributes: attributes.and_then(Result::ok).unwrap_or_default(),
        ..TopicConfig::default()
    })
}

json_bodies!(RegisterBrokerBody);
