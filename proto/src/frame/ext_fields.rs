//! The named text fields of a frame header.

use std::fmt;

/// Most extension fields that are read from one frame: stock clients send at most a few dozen.
pub const EXT_FIELDS_MAX: usize = 1024;

/// An ordered small map from field name to text.
///
/// All names and values stand in one string, so that reading a header of fifteen fields allocates
/// twice, not thirty times. A look-up walks the fields, which beats hashing at these sizes.
#[derive(Clone, Default)]
pub struct ExtFields {
    text: String,
    spans: Vec<Span>,
}

/// Name at `key..value`, value at `value..end` of the text.
#[derive(Clone, Copy)]
struct Span {
    key: usize,
    value: usize,
    end: usize,
}

impl ExtFields {
    /// An empty map with room for so many fields and bytes of text.
    pub fn with_capacity(fields: usize, text: usize) -> Self {
        ExtFields {
            text: String::with_capacity(text),
            spans: Vec::with_capacity(fields),
        }
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.spans
            .iter()
            .rev()
            .find(|span| self.key(span) == name)
            .map(|span| self.value(span))
    }

    /// Sets a field, replacing its former value.
    pub fn insert(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        let value = value.as_ref();
        self.insert_with(name.as_ref(), |text| text.push_str(value));
    }

    /// Sets a field to the printed form of a value, without a string in between.
    pub fn insert_display(&mut self, name: impl AsRef<str>, value: impl fmt::Display) {
        self.insert_with(name.as_ref(), |text| {
            fmt::write(text, format_args!("{value}")).expect("writing into a string cannot fail");
        });
    }

    /// Removes a field; `true` if it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.spans.len();
        let text = &self.text;
        self.spans
            .retain(|span| text.get(span.key..span.value) != Some(name));
        self.spans.len() < before
    }

    /// All fields, in the order they were read or inserted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans
            .iter()
            .map(|span| (self.key(span), self.value(span)))
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of text held.
    pub(super) fn text_len(&self) -> usize {
        self.text.len()
    }

    /// Appends a field that `write` puts down as name and value; it returns where the value
    /// starts, or `None` to take the field back. Does not look for an earlier field of that name:
    /// look-ups find the last.
    pub(super) fn push_with<E>(
        &mut self,
        write: impl FnOnce(&mut String) -> Result<Option<usize>, E>,
    ) -> Result<(), E> {
        let key = self.text.len();
        match write(&mut self.text)? {
            Some(value) => self.spans.push(Span {
                key,
                value,
                end: self.text.len(),
            }),
            None => self.text.truncate(key),
        }
        Ok(())
    }

    fn insert_with(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        let key = self.text.len();
        self.text.push_str(name);
        let value = self.text.len();
        write(&mut self.text);
        let span = Span {
            key,
            value,
            end: self.text.len(),
        };
        let text = &self.text;
        match self
            .spans
            .iter_mut()
            .find(|old| text.get(old.key..old.value) == Some(name))
        {
            Some(old) => *old = span,
            None => self.spans.push(span),
        }
    }

    fn key(&self, span: &Span) -> &str {
        self.text.get(span.key..span.value).unwrap_or_default()
    }

    fn value(&self, span: &Span) -> &str {
        self.text.get(span.value..span.end).unwrap_or_default()
    }
}

impl fmt::Debug for ExtFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Equal when the same names have the same values, in whatever order.
impl PartialEq for ExtFields {
    fn eq(&self, other: &Self) -> bool {
        let within = |a: &ExtFields, b: &ExtFields| a.iter().all(|(k, _)| a.get(k) == b.get(k));
        within(self, other) && within(other, self)
    }
}

impl Eq for ExtFields {}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for ExtFields {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(fields: I) -> Self {
        let mut all = ExtFields::default();
        for (name, value) in fields {
            all.insert(name, value);
        }
        all
    }
}
