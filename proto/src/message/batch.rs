//! The body of a batch send (320): items back to back.
//!
//! | size | field |
//! |---|---|
//! | 4 | totalSize of the item |
//! | 4 | magic, 0 |
//! | 4 | body CRC, 0 |
//! | 4 | flag, the user's |
//! | 4 + n | body |
//! | 2 + n | properties |

use bytes::BufMut;
use thiserror::Error;

use super::properties::PROPERTIES_MAX;
use crate::read::Reader;

const ITEM_MIN: usize = 22;

/// One message of a batch; topic, queue and system flags come from the request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchItem<'a> {
    /// The user's own flag.
    pub flag: i32,
    /// Body.
    pub body: &'a [u8],
    /// Encoded properties.
    pub properties: &'a str,
}

/// Why a batch body cannot be read or written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BatchError {
    /// An item ends beyond the body.
    #[error("batch item {item} ends inside its {field}")]
    Truncated {
        /// Number of the item, from 0.
        item: usize,
        /// The field that was being read.
        field: &'static str,
    },
    /// An item's parts do not add up to its length.
    #[error("batch item {item} of {total} bytes has parts of another length")]
    WrongLength {
        /// Number of the item, from 0.
        item: usize,
        /// Announced length.
        total: usize,
    },
    /// An item's properties are not UTF-8.
    #[error("batch item {item} has properties that are not UTF-8")]
    NotUtf8 {
        /// Number of the item, from 0.
        item: usize,
    },
    /// An item's body or properties are longer than their length fields can say.
    #[error("batch item {item} is longer than a batch carries")]
    TooLong {
        /// Number of the item, from 0.
        item: usize,
    },
}

/// The items of a batch body; ends after the first that cannot be read.
pub fn decode_batch(body: &[u8]) -> impl Iterator<Item = Result<BatchItem<'_>, BatchError>> {
    let mut rest = body;
    let mut item = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let decoded = decode_item(rest, item);
        item += 1;
        Some(match decoded {
            Ok((decoded, len)) => {
                rest = rest.get(len..).unwrap_or_default();
                Ok(decoded)
            }
            Err(error) => {
                rest = &[];
                Err(error)
            }
        })
    })
}

fn decode_item(bytes: &[u8], item: usize) -> Result<(BatchItem<'_>, usize), BatchError> {
    let truncated = |field| BatchError::Truncated { item, field };
    let mut read = Reader::new(bytes);
    let total = read.u32().ok_or_else(|| truncated("totalSize"))? as usize;
    if bytes.len() < total {
        return Err(truncated("totalSize"));
    }
    let (Some(_magic), Some(_crc), Some(flag)) = (read.u32(), read.u32(), read.i32()) else {
        return Err(truncated("flag"));
    };
    let body = read.sized_i32().ok_or_else(|| truncated("body"))?;
    let properties = read.sized_i16().ok_or_else(|| truncated("properties"))?;
    let len = bytes.len() - read.remaining();
    if len != total {
        return Err(BatchError::WrongLength { item, total });
    }
    let properties = std::str::from_utf8(properties)
        .ok()
        .ok_or(BatchError::NotUtf8 { item })?;
    Ok((
        BatchItem {
            flag,
            body,
            properties,
        },
        len,
    ))
}

/// Writes a batch body.
///
/// # Errors
/// When an item is longer than its length fields can say.
pub fn encode_batch(items: &[BatchItem<'_>]) -> Result<Vec<u8>, BatchError> {
    let len = |item: &BatchItem<'_>| ITEM_MIN + item.body.len() + item.properties.len();
    let mut out = Vec::with_capacity(items.iter().map(len).sum());
    for (at, item) in items.iter().enumerate() {
        let too_long = BatchError::TooLong { item: at };
        if item.properties.len() > PROPERTIES_MAX {
            return Err(too_long);
        }
        let Ok(total) = i32::try_from(len(item)) else {
            return Err(too_long);
        };
        out.put_i32(total);
        out.put_u64(0);
        out.put_i32(item.flag);
        out.put_u32(u32::try_from(item.body.len()).unwrap_or(u32::MAX));
        out.put_slice(item.body);
        out.put_u16(u16::try_from(item.properties.len()).unwrap_or(u16::MAX));
        out.put_slice(item.properties.as_bytes());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_item() {
        // The head of an item that the 5.3.3 client wrote: body "hi", 94 bytes of properties.
        let mut bytes = vec![0, 0, 0, 0x76];
        bytes.extend([0; 12]);
        bytes.extend([0, 0, 0, 2, b'h', b'i', 0, 0x5e]);
        let properties = "UNIQ_KEY\u{1}".to_owned() + &"7".repeat(84) + "\u{2}";
        assert_eq!(properties.len(), 94);
        bytes.extend(properties.as_bytes());
        let item = BatchItem {
            flag: 0,
            body: b"hi",
            properties: &properties,
        };
        assert_eq!(encode_batch(&[item]).unwrap(), bytes);
        assert_eq!(decode_batch(&bytes).collect::<Vec<_>>(), [Ok(item)]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let whole = encode_batch(&[BatchItem {
            flag: 1,
            body: b"body",
            properties: "a",
        }])
        .unwrap();
        for len in 1..whole.len() {
            let cut: Result<Vec<_>, _> = decode_batch(&whole[..len]).collect();
            assert!(
                matches!(cut, Err(BatchError::Truncated { item: 0, .. })),
                "{len}: {cut:?}"
            );
        }
        let mut short = whole.clone();
        short[3] -= 1;
        let read: Vec<_> = decode_batch(&short).collect();
        assert_eq!(
            read,
            [Err(BatchError::WrongLength {
                item: 0,
                total: whole.len() - 1
            })]
        );
        let long = "p".repeat(PROPERTIES_MAX + 1);
        let item = BatchItem {
            flag: 0,
            body: b"",
            properties: &long,
        };
        assert_eq!(encode_batch(&[item]), Err(BatchError::TooLong { item: 0 }));
    }

    proptest! {
        #[test]
        fn items_round_trip(items in prop::collection::vec((any::<i32>(), prop::collection::vec(any::<u8>(), 0..64), ".{0,32}"), 0..8)) {
            let items: Vec<_> = items.iter().map(|(flag, body, properties)| BatchItem { flag: *flag, body, properties }).collect();
            let encoded = encode_batch(&items).unwrap();
            let decoded: Vec<_> = decode_batch(&encoded).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(decoded, items);
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..60, byte in any::<u8>()) {
            decode_batch(&bytes).for_each(drop);
            let mut mutated = encode_batch(&[BatchItem { flag: 0, body: b"hello", properties: "a\u{1}b\u{2}" }; 2]).unwrap();
            let at = at % mutated.len();
            mutated[at] = byte;
            prop_assert!(decode_batch(&mutated).count() <= 3);
        }
    }
}
