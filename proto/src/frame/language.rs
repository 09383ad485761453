//! The programming language of a peer.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Language of the program that sent a frame, as RocketMQ numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LanguageCode(pub u8);

const NAMES: [&str; 14] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP",
    "OMS", "RUST", "NODE_JS",
];

macro_rules! languages {
    ($($name:ident = $code:literal),* $(,)?) => {
        impl LanguageCode {
            $(#[doc = concat!("Language code ", $code, ".")]
            pub const $name: LanguageCode = LanguageCode($code);)*
        }
    };
}

languages! {
    JAVA = 0, CPP = 1, DOTNET = 2, PYTHON = 3, DELPHI = 4, ERLANG = 5, RUBY = 6, OTHER = 7,
    HTTP = 8, GO = 9, PHP = 10, OMS = 11, RUST = 12, NODE_JS = 13,
}

impl LanguageCode {
    /// RocketMQ's name of the language; a number without a name counts as `OTHER`.
    pub fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or("OTHER")
    }

    /// The language of a name; an unknown name is `OTHER`.
    pub fn from_name(name: &str) -> Self {
        let code = NAMES.iter().position(|known| *known == name);
        code.and_then(|code| u8::try_from(code).ok())
            .map_or(LanguageCode::OTHER, LanguageCode)
    }

    /// The language of a number on the wire; an unknown number is `OTHER`.
    pub fn from_code(code: u8) -> Self {
        if usize::from(code) < NAMES.len() {
            LanguageCode(code)
        } else {
            LanguageCode::OTHER
        }
    }
}

impl Default for LanguageCode {
    fn default() -> Self {
        LanguageCode::OTHER
    }
}

impl fmt::Display for LanguageCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for LanguageCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for LanguageCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = LanguageCode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a language")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<LanguageCode, E> {
                Ok(LanguageCode::from_name(name))
            }

            fn visit_i64<E: de::Error>(self, code: i64) -> Result<LanguageCode, E> {
                Ok(u8::try_from(code).map_or(LanguageCode::OTHER, LanguageCode::from_code))
            }
        }

        deserializer.deserialize_any(Name)
    }
}
