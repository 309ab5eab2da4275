//! Expressions of the Common Expression Language over what is known of a stream, as filters
//! of access logs take them. See Envoy's "Attributes" and the language's definition.
//!
//! What is not known here, be it an attribute, a function or a form of the language, is
//! refused when the expression is read. What fails when it is evaluated, such as a field that
//! is not there, makes the whole no more than not true.

mod attribute;
mod eval;
mod parse;

use std::fmt;
use std::sync::Arc;

use outrigger_types::HeaderKey;

use crate::format::FormatContext;
use attribute::{Attribute, Fields};

/// An expression.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    root: Arc<Node>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, or what in it is not supported.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self {
            text: text.into(),
            root: Arc::new(parse::parse(text)?),
        })
    }

    /// Whether it holds for a stream. One that has no value, or none that is true or false,
    /// does not.
    pub fn holds(&self, context: &FormatContext<'_>) -> bool {
        matches!(self.root.eval(context), Ok(eval::Value::Bool(true)))
    }
}

impl Expression {
    /// The value for a stream, as Envoy's `%CEL()%` prints it; none if there is none.
    pub fn print(&self, context: &FormatContext<'_>) -> Option<String> {
        Some(match self.root.eval(context).ok()? {
            eval::Value::Null => "NULL".to_owned(),
            eval::Value::Bool(flag) => flag.to_string(),
            eval::Value::Int(n) => n.to_string(),
            eval::Value::Double(n) => double(n),
            eval::Value::Text(text) => text.into_owned(),
            eval::Value::List(_) => "CelList value".to_owned(),
        })
    }
}

/// Six significant digits, as C prints with `%g`.
fn double(n: f64) -> String {
    if n == 0.0 || !n.is_finite() {
        return n.to_string();
    }
    let scientific = format!("{n:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..6).contains(&exponent) {
        let places = usize::try_from(5 - exponent).unwrap_or(0);
        return trim(&format!("{n:.places$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(digits), exponent.abs())
}

/// A part of an expression.
#[derive(Debug)]
enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Box<str>),
    List(Vec<Node>),
    Attribute(Attribute),
    /// A header or a trailer.
    Field(Fields, HeaderKey),
    /// Whether there is such a value.
    Has(Box<Node>),
    /// Whether a text is the name of one of the fields.
    IsField(Box<Node>, Fields),
    Not(Box<Node>),
    Negative(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    /// The condition, and what holds in either case.
    Choice(Box<Node>, Box<Node>, Box<Node>),
    Call(Function, Box<Node>, Option<Box<Node>>),
}

/// An operator between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
    In,
    Plus,
    Minus,
    Times,
    Divided,
    Modulo,
}

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Size,
    StartsWith,
    EndsWith,
    Contains,
}

#[cfg(test)]
mod tests;
