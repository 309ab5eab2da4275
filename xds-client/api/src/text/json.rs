//! JSON with the liberties that Envoy's parser takes.

use serde_json::{Map, Number, Value as Json};

use super::{MAX_DEPTH, TextError, insert};

/// Reads one JSON value and nothing behind it.
pub(super) fn parse(text: &str) -> Result<Json, TextError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    let value = parser.value()?;
    parser.skip_space();
    if parser.at < text.len() {
        return parser.error("extraneous characters after the end of the JSON value");
    }
    Ok(value)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error<T>(&self, reason: impl Into<String>) -> Result<T, TextError> {
        let before = self.text.get(..self.at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        Err(TextError {
            line,
            column,
            reason: reason.into(),
        })
    }

    fn skip_space(&mut self) {
        let space = self
            .rest()
            .bytes()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
            .count();
        self.at += space;
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.rest().bytes().next()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self) -> Result<Json, TextError> {
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(quote @ (b'"' | b'\'')) => self.string(quote).map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => self.word(),
            None => self.error("unexpected end of the file"),
        }
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Json, TextError>,
    ) -> Result<Json, TextError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error("nested too deeply");
        }
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Json, TextError> {
        let mut object = Map::new();
        while !self.take(b'}') {
            let name = self.name()?;
            if !self.take(b':') {
                return self.error(format!("expected ':' behind {name:?}"));
            }
            let value = self.value()?;
            insert(&mut object, name, value);
            if !self.take(b',') && self.peek() != Some(b'}') {
                return self.error("expected ',' or '}'");
            }
        }
        Ok(Json::Object(object))
    }

    fn array(&mut self) -> Result<Json, TextError> {
        let mut items = Vec::new();
        while !self.take(b']') {
            items.push(self.value()?);
            if !self.take(b',') && self.peek() != Some(b']') {
                return self.error("expected ',' or ']'");
            }
        }
        Ok(Json::Array(items))
    }

    /// A member's name, quoted or bare.
    fn name(&mut self) -> Result<String, TextError> {
        if let Some(quote @ (b'"' | b'\'')) = self.peek() {
            return self.string(quote);
        }
        let length = self
            .rest()
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'))
            .count();
        let name = self.rest().get(..length).unwrap_or_default();
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            return self.error("expected a member's name");
        }
        self.at += length;
        Ok(name.to_owned())
    }

    fn word(&mut self) -> Result<Json, TextError> {
        for (word, value) in [
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
            ("null", Json::Null),
        ] {
            if self.rest().starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        let found = self.rest().chars().next().unwrap_or_default();
        self.error(format!("unexpected character {found:?}"))
    }

    fn number(&mut self) -> Result<Json, TextError> {
        let length = self
            .rest()
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
            .count();
        let text = self.rest().get(..length).unwrap_or_default();
        match serde_json::from_str::<Number>(text) {
            Ok(number) => {
                self.at += length;
                Ok(Json::Number(number))
            }
            Err(_) => self.error(format!("invalid number {text:?}")),
        }
    }

    fn string(&mut self, quote: u8) -> Result<String, TextError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let Some(next) = self.rest().chars().next() else {
                return self.error("a string that does not end");
            };
            self.at += next.len_utf8();
            match next {
                '\\' => out.push(self.escape()?),
                next if next == char::from(quote) => return Ok(out),
                next if next < ' ' => return self.error("a control character in a string"),
                next => out.push(next),
            }
        }
    }

    fn escape(&mut self) -> Result<char, TextError> {
        let Some(next) = self.rest().chars().next() else {
            return self.error("a string that does not end");
        };
        self.at += next.len_utf8();
        Ok(match next {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '"' | '\'' | '\\' | '/' => next,
            'u' => return self.unicode(),
            other => return self.error(format!("unknown escape \\{other}")),
        })
    }

    fn unicode(&mut self) -> Result<char, TextError> {
        let first = self.four_digits()?;
        let code = match first {
            0xd800..0xdc00 if self.rest().starts_with("\\u") => {
                self.at += 2;
                let second = self.four_digits()?;
                0x1_0000 + ((first - 0xd800) << 10) + (second.wrapping_sub(0xdc00) & 0x3ff)
            }
            code => code,
        };
        match char::from_u32(code) {
            Some(letter) => Ok(letter),
            None => self.error("half of a surrogate pair"),
        }
    }

    fn four_digits(&mut self) -> Result<u32, TextError> {
        let digits = self
            .rest()
            .get(..4)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                self.at += 4;
                Ok(code)
            }
            None => self.error("\\u needs four digits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn takes_the_liberties_that_envoy_takes() {
        for (text, value) in [
            (r#"{"a": {"b": 1,},}"#, json!({"a": {"b": 1}})),
            (r#"[1, 2,]"#, json!([1, 2])),
            ("{a: 'b\\'c'}", json!({"a": "b'c"})),
            (r#"{"a": 1, "a": 2}"#, json!({"a": 2})),
            (r#"{"a": [1], "a": [2]}"#, json!({"a": [1, 2]})),
            (r#""\u00e9\ud83d\ude00\n""#, json!("é😀\n")),
            ("-1.5e3", json!(-1.5e3)),
            ("18446744073709551615", json!(u64::MAX)),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn names_the_line_of_what_it_refuses() {
        for (text, line, column) in [
            ("{\"a\": 1,,}", 1, 9),
            ("{\n  \"a\" 1}", 2, 7),
            ("{} x", 1, 4),
            ("{\"a\": 01}", 1, 7),
            ("{\"a\": \"\n\"}", 2, 1),
            ("[1 /* */]", 1, 4),
            ("", 1, 1),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(
                (error.line, error.column),
                (line, column),
                "{text}: {error}"
            );
        }
        assert!(parse(&"[".repeat(10_000)).is_err());
    }
}
