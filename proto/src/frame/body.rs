//! The payload of a frame, in as many pieces as it was gathered from.

use bytes::{Bytes, BytesMut};

/// Zero, one or many pieces of bytes; a pull reply is made of slices of the commit log.
#[derive(Clone, Debug, Default)]
pub struct Body(Pieces);

#[derive(Clone, Debug, Default)]
enum Pieces {
    #[default]
    Empty,
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Body {
    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.chunks().iter().map(Bytes::len).sum()
    }

    /// Whether there is not one byte.
    pub fn is_empty(&self) -> bool {
        self.chunks().iter().all(Bytes::is_empty)
    }

    /// The pieces, in order.
    pub fn chunks(&self) -> &[Bytes] {
        match &self.0 {
            Pieces::Empty => &[],
            Pieces::One(bytes) => std::slice::from_ref(bytes),
            Pieces::Many(chunks) => chunks,
        }
    }

    /// All bytes in one piece; copies only when there are several.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Pieces::Empty => Bytes::new(),
            Pieces::One(bytes) => bytes,
            Pieces::Many(chunks) => {
                let mut all = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
                for chunk in &chunks {
                    all.extend_from_slice(chunk);
                }
                all.freeze()
            }
        }
    }

    /// All bytes in one piece, leaving this as it is; copies only when there are several.
    pub fn to_bytes(&self) -> Bytes {
        self.clone().into_bytes()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Body(if bytes.is_empty() {
            Pieces::Empty
        } else {
            Pieces::One(bytes)
        })
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(mut chunks: Vec<Bytes>) -> Self {
        match (chunks.len(), chunks.pop()) {
            (1, Some(only)) => only.into(),
            (_, Some(last)) => {
                chunks.push(last);
                Body(Pieces::Many(chunks))
            }
            (_, None) => Body::default(),
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<BytesMut> for Body {
    fn from(bytes: BytesMut) -> Self {
        bytes.freeze().into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

/// Bodies are equal when their bytes are, in however many pieces.
impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self
                .chunks()
                .iter()
                .flat_map(|chunk| chunk.iter())
                .eq(other.chunks().iter().flat_map(|chunk| chunk.iter()))
    }
}

impl Eq for Body {}
