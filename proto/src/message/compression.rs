//! Compressed bodies. Producers compress and consumers decompress; a broker only passes the
//! bytes and flags on.

use std::borrow::Cow;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use thiserror::Error;

use super::sys_flag::{COMPRESSED, COMPRESSION_TYPE_MASK};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// LZ4 frame.
    Lz4,
    /// Zstandard frame.
    Zstd,
    /// zlib stream (RFC 1950).
    Zlib,
}

impl CompressionType {
    /// The type bits of a message's system flags.
    pub fn sys_flag_bits(self) -> i32 {
        match self {
            CompressionType::Lz4 => 0x100,
            CompressionType::Zstd => 0x200,
            CompressionType::Zlib => 0x300,
        }
    }

    /// The type that system flags name. Clients of 4.x set no type bits and mean zlib.
    ///
    /// # Errors
    /// When the bits name no type.
    pub fn of(sys_flag: i32) -> Result<Self, CompressionError> {
        match sys_flag & COMPRESSION_TYPE_MASK {
            0 | 0x300 => Ok(CompressionType::Zlib),
            0x100 => Ok(CompressionType::Lz4),
            0x200 => Ok(CompressionType::Zstd),
            bits => Err(CompressionError::UnknownType { bits }),
        }
    }
}

/// Why a body cannot be decompressed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CompressionError {
    /// The stream is damaged or cut off.
    #[error("compressed data cannot be read: {0}")]
    Corrupt(String),
    /// More than the caller allows comes out.
    #[error("compressed data is longer than {max} bytes")]
    TooLong {
        /// Most bytes allowed.
        max: usize,
    },
    /// The type bits name no type.
    #[error("compression type bits {bits:#x} are unknown")]
    UnknownType {
        /// The bits found.
        bits: i32,
    },
    /// The type is known but not built in.
    #[error("compression type {0:?} is not supported")]
    Unsupported(CompressionType),
}

/// Compresses into a zlib stream at a level from 0 (none) to 9; RocketMQ uses 5.
pub fn compress_zlib(bytes: &[u8], level: u32) -> Vec<u8> {
    let out = Vec::with_capacity(bytes.len() / 2 + 16);
    let mut encoder = ZlibEncoder::new(out, Compression::new(level.min(9)));
    encoder
        .write_all(bytes)
        .expect("writing to memory cannot fail");
    encoder.finish().expect("writing to memory cannot fail")
}

/// Decompresses a zlib stream into at most `max` bytes.
///
/// # Errors
/// When the stream is damaged or longer.
pub fn decompress_zlib(bytes: &[u8], max: usize) -> Result<Vec<u8>, CompressionError> {
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    // What comes out is bounded by `max`; what is reserved, by what went in.
    let mut out = Vec::with_capacity(bytes.len().saturating_mul(4).min(max));
    ZlibDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|error| CompressionError::Corrupt(error.to_string()))?;
    if out.len() > max {
        return Err(CompressionError::TooLong { max });
    }
    Ok(out)
}

/// A message's body as its producer wrote it: decompressed when `sys_flag` says so, into at most
/// `max` bytes.
///
/// # Errors
/// When the data is damaged or longer, or the type is not supported (LZ4, Zstandard).
pub fn decompress_body(
    sys_flag: i32,
    body: &[u8],
    max: usize,
) -> Result<Cow<'_, [u8]>, CompressionError> {
    if sys_flag & COMPRESSED == 0 {
        return Ok(Cow::Borrowed(body));
    }
    match CompressionType::of(sys_flag)? {
        CompressionType::Zlib => decompress_zlib(body, max).map(Cow::Owned),
        other => Err(CompressionError::Unsupported(other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn size_is_capped() {
        let bomb = compress_zlib(&vec![0; 1_000_000], 5);
        assert!(bomb.len() < 2_000);
        assert_eq!(
            decompress_zlib(&bomb, 999_999),
            Err(CompressionError::TooLong { max: 999_999 })
        );
        assert_eq!(decompress_zlib(&bomb, 1_000_000).unwrap().len(), 1_000_000);
    }

    #[test]
    fn flags_choose_the_type() {
        let body = compress_zlib(b"hello", 5);
        for flag in [COMPRESSED, COMPRESSED | 0x300] {
            assert_eq!(decompress_body(flag, &body, 10).unwrap(), &b"hello"[..]);
        }
        assert_eq!(decompress_body(0, &body, 0).unwrap(), body);
        let zstd = decompress_body(COMPRESSED | 0x200, &body, 10);
        assert_eq!(
            zstd,
            Err(CompressionError::Unsupported(CompressionType::Zstd))
        );
        let unknown = decompress_body(COMPRESSED | 0x400, &body, 10);
        assert_eq!(unknown, Err(CompressionError::UnknownType { bits: 0x400 }));
    }

    proptest! {
        #[test]
        fn round_trip(bytes in prop::collection::vec(any::<u8>(), 0..500), level in 0u32..12) {
            let packed = compress_zlib(&bytes, level);
            prop_assert_eq!(decompress_zlib(&packed, bytes.len()).unwrap(), bytes);
        }

        #[test]
        fn any_bytes_decompress_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(decompress_zlib(&bytes, 1000));
        }
    }
}
