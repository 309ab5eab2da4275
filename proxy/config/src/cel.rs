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
