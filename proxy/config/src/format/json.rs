//! JSON formats: one object for a stream, typed values, keys in order.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use super::value::{append_float, append_json_escaped, append_json_string};
use super::{FormatContext, FormatOptions, Token, parse};

/// A compiled JSON format. Cloning is cheap.
#[derive(Clone)]
pub struct JsonFormat {
    source: Arc<str>,
    root: Arc<Object>,
    omit_empty: bool,
}

/// Fields in the order of their names: the name as JSON with its colon.
type Object = Vec<(Box<[u8]>, Node)>;

#[derive(Debug)]
enum Node {
    Null,
    /// JSON that is the same for every stream.
    Fixed(Box<[u8]>),
    /// One operator or several pieces.
    Format(Vec<Token>),
    List(Vec<Node>),
    Object(Object),
}

impl JsonFormat {
    /// Compiles an object whose strings are formats. A string that is one
    /// operator alone keeps the operator's type: a number stays a number, and
    /// what is absent is `null`.
    ///
    /// # Errors
    /// As [`Format::parse`](super::Format::parse), with the key before it.
    pub fn parse(
        object: &serde_json::Map<String, Json>,
        options: &FormatOptions,
    ) -> Result<Self, String> {
        Ok(Self {
            source: serde_json::to_string(object).unwrap_or_default().into(),
            root: Arc::new(compile_object(object, options)?),
            omit_empty: options.omit_empty_values,
        })
    }

    /// Appends the object for a stream, and a newline.
    pub fn append_to(&self, out: &mut Vec<u8>, context: &FormatContext<'_>) {
        self.append_object_to(out, context);
        out.push(b'\n');
    }

    /// Appends the object for a stream without a newline.
    pub fn append_object_to(&self, out: &mut Vec<u8>, context: &FormatContext<'_>) {
        let writer = Writer {
            context,
            omit_empty: self.omit_empty,
        };
        writer.object(out, &self.root);
    }
}

impl fmt::Debug for JsonFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JsonFormat").field(&self.source).finish()
    }
}

impl PartialEq for JsonFormat {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.omit_empty == other.omit_empty
    }
}

fn compile_object(
    object: &serde_json::Map<String, Json>,
    options: &FormatOptions,
) -> Result<Object, String> {
    let sorted: BTreeMap<_, _> = object.iter().collect();
    sorted
        .into_iter()
        .map(|(key, value)| {
            let mut name = Vec::new();
            append_json_string(&mut name, key.as_bytes());
            name.push(b':');
            let node = compile(value, options).map_err(|error| format!("{key}: {error}"))?;
            Ok((name.into(), node))
        })
        .collect()
}

fn compile(value: &Json, options: &FormatOptions) -> Result<Node, String> {
    let mut fixed = Vec::new();
    match value {
        Json::Null => return Ok(Node::Null),
        Json::Bool(flag) => fixed.extend_from_slice(flag.to_string().as_bytes()),
        Json::Number(number) => match number.as_f64() {
            Some(number) => append_float(&mut fixed, number),
            None => fixed.extend_from_slice(number.to_string().as_bytes()),
        },
        Json::String(text) => {
            let tokens = parse::tokens(text, options)?;
            match &*tokens {
                [] => fixed.extend_from_slice(b"\"\""),
                [Token::Literal(text)] => append_json_string(&mut fixed, text.as_bytes()),
                _ => return Ok(Node::Format(tokens)),
            }
        }
        Json::Array(items) => {
            let items = items.iter().map(|item| compile(item, options));
            return Ok(Node::List(items.collect::<Result<_, _>>()?));
        }
        Json::Object(object) => return Ok(Node::Object(compile_object(object, options)?)),
    }
    Ok(Node::Fixed(fixed.into()))
}

/// Writes nodes for one stream.
struct Writer<'c, 'a> {
    context: &'c FormatContext<'a>,
    omit_empty: bool,
}

impl Writer<'_, '_> {
    fn object(&self, out: &mut Vec<u8>, object: &Object) -> bool {
        out.push(b'{');
        let mut any = false;
        for (name, node) in object {
            let start = out.len();
            if any {
                out.push(b',');
            }
            out.extend_from_slice(name);
            if self.node(out, node) {
                any = true;
            } else {
                out.truncate(start);
            }
        }
        out.push(b'}');
        any
    }

    fn list(&self, out: &mut Vec<u8>, items: &[Node]) {
        out.push(b'[');
        let mut any = false;
        for item in items {
            let start = out.len();
            if any {
                out.push(b',');
            }
            if self.node(out, item) {
                any = true;
            } else {
                out.truncate(start);
            }
        }
        out.push(b']');
    }

    /// Writes a node; false if it is to be left out.
    fn node(&self, out: &mut Vec<u8>, node: &Node) -> bool {
        match node {
            Node::Null if self.omit_empty => return false,
            Node::Null => out.extend_from_slice(b"null"),
            Node::Fixed(json) => out.extend_from_slice(json),
            Node::List(items) => self.list(out, items),
            Node::Object(object) => return self.object(out, object) || !self.omit_empty,
            Node::Format(tokens) => return self.format(out, tokens),
        }
        true
    }

    fn format(&self, out: &mut Vec<u8>, tokens: &[Token]) -> bool {
        if let [Token::Operator(operator)] = tokens {
            let value = operator.evaluate(self.context);
            if self.omit_empty && value.is_absent() {
                return false;
            }
            value.truncate(operator.max_length()).append_json(out);
            return true;
        }
        out.push(b'"');
        let mut text = Vec::new();
        for token in tokens {
            match token {
                Token::Literal(literal) => append_json_escaped(out, literal.as_bytes()),
                Token::Operator(operator) => {
                    text.clear();
                    let value = operator.evaluate(self.context);
                    if value.append_text(&mut text, operator.max_length()) {
                        append_json_escaped(out, &text);
                    } else if !self.omit_empty {
                        out.push(b'-');
                    }
                }
            }
        }
        out.push(b'"');
        true
    }
}
