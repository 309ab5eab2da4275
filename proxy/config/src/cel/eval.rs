//! What an expression is, for one stream.

use std::borrow::Cow;
use std::cmp::Ordering;

use outrigger_types::HeaderKey;

use super::{Function, Node, Operator};
use crate::format::FormatContext;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
}

/// There is no value: something is missing, or is not what the operator takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoValue;

type Result<T> = std::result::Result<T, NoValue>;

impl Node {
    pub(super) fn eval<'a>(&'a self, cx: &FormatContext<'a>) -> Result<Value<'a>> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Int(n) => Value::Int(*n),
            Self::Double(n) => Value::Double(*n),
            Self::Text(text) => Value::Text((&**text).into()),
            Self::List(items) => {
                let items = items.iter().map(|item| item.eval(cx));
                Value::List(items.collect::<Result<_>>()?)
            }
            Self::Attribute(attribute) => attribute.read(cx).ok_or(NoValue)?,
            Self::Field(fields, name) => Value::Text(fields.get(name, cx).ok_or(NoValue)?),
            Self::Has(node) => Value::Bool(node.eval(cx).is_ok()),
            Self::IsField(name, fields) => {
                let name = name.eval(cx)?.text()?;
                let key = HeaderKey::parse(&name);
                Value::Bool(key.is_some_and(|key| fields.get(&key, cx).is_some()))
            }
            Self::Not(node) => Value::Bool(!node.eval(cx)?.bool()?),
            Self::Negative(node) => match node.eval(cx)? {
                Value::Int(n) => Value::Int(n.checked_neg().ok_or(NoValue)?),
                Value::Double(n) => Value::Double(-n),
                _ => return Err(NoValue),
            },
            Self::Choice(condition, yes, no) => match condition.eval(cx)?.bool()? {
                true => yes.eval(cx)?,
                false => no.eval(cx)?,
            },
            Self::Binary(Operator::And, one, other) => either(one, other, false, cx)?,
            Self::Binary(Operator::Or, one, other) => either(one, other, true, cx)?,
            Self::Binary(operator, one, other) => {
                operator.apply(&one.eval(cx)?, &other.eval(cx)?)?
            }
            Self::Call(function, target, argument) => {
                let target = target.eval(cx)?.text()?;
                let argument = match argument {
                    Some(argument) => argument.eval(cx)?.text()?,
                    None => "".into(),
                };
                function.apply(&target, &argument)
            }
        })
    }
}

/// `&&` and `||`: one side that decides is enough, whatever the other is.
fn either<'a>(
    one: &'a Node,
    other: &'a Node,
    decides: bool,
    cx: &FormatContext<'a>,
) -> Result<Value<'a>> {
    let side = |node: &'a Node| node.eval(cx).and_then(|value| value.bool());
    let first = side(one);
    if first == Ok(decides) {
        return Ok(Value::Bool(decides));
    }
    let second = side(other);
    if second == Ok(decides) {
        return Ok(Value::Bool(decides));
    }
    first.and(second).map(Value::Bool)
}

impl<'a> Value<'a> {
    fn bool(&self) -> Result<bool> {
        match self {
            Self::Bool(flag) => Ok(*flag),
            _ => Err(NoValue),
        }
    }

    fn text(self) -> Result<Cow<'a, str>> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(NoValue),
        }
    }

    fn order(&self, other: &Self) -> Result<Ordering> {
        let order = match (self, other) {
            (Self::Int(one), Self::Int(other)) => Some(one.cmp(other)),
            (Self::Double(one), Self::Double(other)) => one.partial_cmp(other),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Int(one), Self::Double(other)) => (*one as f64).partial_cmp(other),
            (Self::Double(one), Self::Int(other)) => one.partial_cmp(&(*other as f64)),
            _ => None,
        };
        order.ok_or(NoValue)
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::List(one), Self::List(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.equals(b))
            }
            _ => self.order(other) == Ok(Ordering::Equal),
        }
    }
}

impl Operator {
    fn apply(self, one: &Value<'_>, other: &Value<'_>) -> Result<Value<'static>> {
        let holds = match self {
            Self::Equal => one.equals(other),
            Self::NotEqual => !one.equals(other),
            Self::Less => one.order(other)?.is_lt(),
            Self::AtMost => one.order(other)?.is_le(),
            Self::Greater => one.order(other)?.is_gt(),
            Self::AtLeast => one.order(other)?.is_ge(),
            Self::In => {
                let Value::List(items) = other else {
                    return Err(NoValue);
                };
                items.iter().any(|item| one.equals(item))
            }
            _ => return self.compute(one, other),
        };
        Ok(Value::Bool(holds))
    }

    fn compute(self, one: &Value<'_>, other: &Value<'_>) -> Result<Value<'static>> {
        match (one, other) {
            (Value::Int(one), Value::Int(other)) => {
                let result = match self {
                    Self::Plus => one.checked_add(*other),
                    Self::Minus => one.checked_sub(*other),
                    Self::Times => one.checked_mul(*other),
                    Self::Divided => one.checked_div(*other),
                    Self::Modulo => one.checked_rem(*other),
                    _ => None,
                };
                result.map(Value::Int).ok_or(NoValue)
            }
            (Value::Double(one), Value::Double(other)) => match self {
                Self::Plus => Ok(Value::Double(one + other)),
                Self::Minus => Ok(Value::Double(one - other)),
                Self::Times => Ok(Value::Double(one * other)),
                Self::Divided => Ok(Value::Double(one / other)),
                _ => Err(NoValue),
            },
            _ => Err(NoValue),
        }
    }
}

impl Function {
    fn apply(self, target: &str, argument: &str) -> Value<'static> {
        match self {
            Self::Size => {
                let letters = target.chars().count();
                Value::Int(i64::try_from(letters).unwrap_or(i64::MAX))
            }
            Self::StartsWith => Value::Bool(target.starts_with(argument)),
            Self::EndsWith => Value::Bool(target.ends_with(argument)),
            Self::Contains => Value::Bool(target.contains(argument)),
        }
    }
}
