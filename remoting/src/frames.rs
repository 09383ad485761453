//! Cuts the bytes of a connection into frames.

use bytes::{Buf, Bytes, BytesMut};

/// Length word in front of every frame.
const LENGTH_BYTES: usize = 4;

/// A frame cannot be shorter than the word that gives its header's type and length.
const FRAME_MIN: usize = 4;

/// A length word that no frame can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame length {length} is not within {FRAME_MIN}..={limit}")]
pub(crate) struct BadLength {
    /// The length word as the signed number that the protocol defines.
    pub(crate) length: i32,
    /// The largest length word allowed.
    pub(crate) limit: usize,
}

/// What the buffer begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A whole frame, taken out of the buffer; without its length word.
    Frame(Bytes),
    /// The start of a frame: this many bytes are missing at least.
    Missing(usize),
}

/// Takes the next frame. `frame_max` limits the frame together with its length word, as in the original.
pub(crate) fn next(buffer: &mut BytesMut, frame_max: usize) -> Result<Next, BadLength> {
    let Some(word) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(Next::Missing(LENGTH_BYTES - buffer.len()));
    };
    let length = i32::from_be_bytes(*word);
    let limit = frame_max.saturating_sub(LENGTH_BYTES);
    let valid = usize::try_from(length)
        .ok()
        .filter(|n| (FRAME_MIN..=limit).contains(n));
    let frame_len = valid.ok_or(BadLength { length, limit })?;
    if buffer.len() < LENGTH_BYTES + frame_len {
        return Ok(Next::Missing(LENGTH_BYTES + frame_len - buffer.len()));
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Next::Frame(buffer.split_to(frame_len).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn many_frames_of_one_read_come_out_one_by_one() {
        let mut buffer = BytesMut::from(&b"\0\0\0\x04abcd\0\0\0\x05efghi\0\0\0\x09j"[..]);
        assert_eq!(
            next(&mut buffer, 64),
            Ok(Next::Frame(Bytes::from_static(b"abcd")))
        );
        assert_eq!(
            next(&mut buffer, 64),
            Ok(Next::Frame(Bytes::from_static(b"efghi")))
        );
        assert_eq!(next(&mut buffer, 64), Ok(Next::Missing(8)));
        assert_eq!(
            next(&mut BytesMut::from(&b"\0\0"[..]), 64),
            Ok(Next::Missing(2))
        );
    }

    #[test]
    fn lengths_no_frame_can_have_are_refused_as_soon_as_they_are_known() {
        for (word, length) in [
            (*b"\0\0\0\x03", 3),
            (*b"\0\0\0\0", 0),
            (*b"\0\0\0\x3d", 61),
            (*b"\xff\xff\xff\xff", -1),
            (*b"GET ", 0x4745_5420),
        ] {
            let bad = BadLength { length, limit: 60 };
            assert_eq!(next(&mut BytesMut::from(&word[..]), 64), Err(bad));
        }
        assert_eq!(
            next(&mut BytesMut::from(&b"\0\0\0\x3c"[..]), 64),
            Ok(Next::Missing(60))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_frames(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), 0..8u8, any::<u8>()], 0..300),
            cut in 1usize..9,
        ) {
            let read = |pieces: Vec<&[u8]>| {
                let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
                for piece in pieces {
                    buffer.extend_from_slice(piece);
                    loop {
                        match next(&mut buffer, 100) {
                            Ok(Next::Frame(frame)) => frames.push(frame),
                            Ok(Next::Missing(missing)) => {
                                assert!(missing > 0);
                                break;
                            }
                            Err(bad) => return (frames, Some(bad)),
                        }
                    }
                }
                (frames, None)
            };
            prop_assert_eq!(read(vec![&bytes]), read(bytes.chunks(cut).collect()));
        }
    }
}
