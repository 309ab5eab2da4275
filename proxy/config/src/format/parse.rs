//! Takes a format string apart.

use super::operator::{Call, Operator};
use super::{FormatOptions, Token};

/// The pieces of a format string. Neighbouring literals are one piece.
pub(super) fn tokens(text: &str, options: &FormatOptions) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        let from = &rest[at..];
        if let Some(after) = from.strip_prefix("%%") {
            literal.push('%');
            rest = after;
            continue;
        }
        let Some((call, length)) = command(from) else {
            return Err(format!(
                "Incorrect configuration: {text}. Couldn't find valid command at position {}",
                text.len() - from.len()
            ));
        };
        if !literal.is_empty() {
            tokens.push(Token::Literal(std::mem::take(&mut literal).into()));
        }
        tokens.push(Token::Operator(Operator::build(&call, options)?));
        rest = &from[length..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        tokens.push(Token::Literal(literal.into()));
    }
    Ok(tokens)
}

/// Reads `%NAME(params):length%` at the start of `text`, and how long it is.
fn command(text: &str) -> Option<(Call<'_>, usize)> {
    let body = text.strip_prefix('%')?;
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let name_end = body.find(|c| !is_name(c))?;
    if name_end == 0 {
        return None;
    }
    let (name, after) = body.split_at(name_end);
    let (params, max_length, after) = match after.strip_prefix('(') {
        Some(inside) => with_params(inside)?,
        None => {
            let (max_length, after) = ending(after)?;
            (None, max_length, after)
        }
    };
    let call = Call {
        name,
        params: params.unwrap_or_default(),
        max_length,
    };
    Some((call, text.len() - after.len()))
}

type Params<'a> = (Option<&'a str>, Option<usize>, &'a str);

/// Reads `params):length%`. The parameters end at the first `)` that an ending
/// follows: one in their midst is theirs. They have no newline.
fn with_params(inside: &str) -> Option<Params<'_>> {
    let line = &inside[..inside.find('\n').unwrap_or(inside.len())];
    line.match_indices(')').find_map(|(at, _)| {
        let (max_length, after) = ending(&inside[at + 1..])?;
        Some((Some(&inside[..at]), max_length, after))
    })
}

/// Reads `:length%` or `%`: the length, and what follows.
fn ending(text: &str) -> Option<(Option<usize>, &str)> {
    if let Some(after) = text.strip_prefix('%') {
        return Some((None, after));
    }
    let digits = text.strip_prefix(':')?;
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    let after = digits[end..].strip_prefix('%')?;
    Some((Some(digits[..end].parse().ok()?), after))
}
