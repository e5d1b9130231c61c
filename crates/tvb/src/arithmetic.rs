//! What an edit is: weights α over tasks, from the words of a command or from an expression such as `a + 0.5*b - c`.
//!
//! Pure: names and numbers in, weights out. A basis turns weights α over tasks into weights Wα over atoms; nothing here
//! knows of files or data. The grammar of expressions, with task names as vectors and numbers as scalars:
//! ```text
//! sum     = product { ("+" | "-") product }
//! product = signed { ("*" | "/") signed }        one factor of a product may be a vector
//! signed  = { "+" | "-" } atom
//! atom    = number | name | 'quoted name' | "quoted name" | "(" sum ")"
//! name    = letter or _, then letters, digits, _ and .
//! ```

use crate::error::{Error, Result};
use crate::nearest::nearest;

/// Parentheses and signs may be nested this deep.
const MAX_DEPTH: usize = 64;
/// Longer expressions are refused: nobody typed them.
const MAX_LENGTH: usize = 64 * 1024;

/// The position of the task called `name`.
///
/// # Errors
/// Rejected: no such task; the hint suggests the nearest name or lists what there is.
pub fn find_task(names: &[String], name: &str) -> Result<usize> {
    names.iter().position(|known| known == name).ok_or_else(|| unknown_task(names, name))
}

fn unknown_task(names: &[String], name: &str) -> Error {
    let error = Error::rejected(format!("unknown task {name:?}"));
    match nearest(name, names.iter().map(String::as_str)) {
        Some(known) => error.hint(format!("did you mean {known:?}?")),
        None => {
            let mut listed: Vec<&str> = names.iter().take(20).map(String::as_str).collect();
            if names.len() > listed.len() {
                listed.push("…");
            }
            error.hint(format!("the tasks are {}", listed.join(", ")))
        }
    }
}

/// `NAME` or `NAME:WEIGHT`; a weight of 1 where none is said. The last colon counts.
///
/// # Errors
/// Usage: what follows the last colon is no finite number.
pub fn parse_weighted(text: &str) -> Result<(String, f64)> {
    let Some((name, number)) = text.rsplit_once(':') else { return Ok((text.to_owned(), 1.0)) };
    match number.trim().parse::<f64>() {
        Ok(weight) if weight.is_finite() => Ok((name.to_owned(), weight)),
        _ => Err(Error::usage(format!("NAME:WEIGHT such as mnist:0.5 expected, {text:?} found"))),
    }
}

/// Adds to the weight of a task that was found.
fn add(alpha: &mut [f64], task: usize, weight: f64) {
    if let Some(sum) = alpha.get_mut(task) {
        *sum += weight;
    }
}

/// Weights for `add`: `chosen` names with weights, or all tasks with weight 1 where none is chosen.
///
/// # Errors
/// Usage: a weight that is not finite, or a name that is no task.
pub fn addition(names: &[String], chosen: &[(String, f64)]) -> Result<Vec<f64>> {
    if chosen.is_empty() {
        return Ok(vec![1.0; names.len()]);
    }
    let mut alpha = vec![0.0; names.len()];
    for (name, weight) in chosen {
        if !weight.is_finite() {
            return Err(Error::usage(format!("task {name}: a finite weight expected, {weight} found")));
        }
        add(&mut alpha, find_task(names, name)?, *weight);
    }
    Ok(alpha)
}

/// Weights for `negate`: −1 for the task.
///
/// # Errors
/// Usage: a name that is no task.
pub fn negation(names: &[String], task: &str) -> Result<Vec<f64>> {
    let mut alpha = vec![0.0; names.len()];
    add(&mut alpha, find_task(names, task)?, -1.0);
    Ok(alpha)
}

/// Weights for `analogy`: A is to B as C is to …, that is τC + τB − τA.
///
/// # Errors
/// Usage: a name that is no task.
pub fn analogy(names: &[String], a: &str, b: &str, c: &str) -> Result<Vec<f64>> {
    let mut alpha = vec![0.0; names.len()];
    add(&mut alpha, find_task(names, c)?, 1.0);
    add(&mut alpha, find_task(names, b)?, 1.0);
    add(&mut alpha, find_task(names, a)?, -1.0);
    Ok(alpha)
}

/// Weights for `apply`: a linear expression in task names.
///
/// # Errors
/// Rejected: a malformed expression (pointing at the character), an unknown task, a product of two vectors, or a plain
/// number as the result. Usage: a weight that is not finite.
pub fn expression(names: &[String], text: &str) -> Result<Vec<f64>> {
    if text.len() > MAX_LENGTH {
        return Err(Error::rejected(format!(
            "an expression of at most {MAX_LENGTH} bytes expected, {} found",
            text.len()
        )));
    }
    let mut parser = Parser { names, text, at: 0, depth: 0 };
    let value = parser.sum()?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.error("an operator (+ - * /) or the end expected"));
    }
    match value {
        Value::Vector(alpha) => match names.iter().zip(&alpha).find(|(_, weight)| !weight.is_finite()) {
            None => Ok(alpha),
            Some((name, weight)) => {
                Err(Error::usage(format!("{text}: task {name}: a finite weight expected, {weight} found")))
            }
        },
        Value::Scalar(_) => {
            Err(Error::rejected(format!("{text}: an expression in task names expected, a plain number found"))
                .hint("for example 'a + 0.5*b - c'"))
        }
    }
}

enum Value {
    Scalar(f64),
    Vector(Vec<f64>),
}

impl Value {
    fn scaled(self, factor: f64) -> Value {
        match self {
            Value::Scalar(scalar) => Value::Scalar(scalar * factor),
            Value::Vector(mut alpha) => {
                // A task that is not in it stays out, whatever the factor (0·∞ is NaN).
                alpha.iter_mut().filter(|weight| **weight != 0.0).for_each(|weight| *weight *= factor);
                Value::Vector(alpha)
            }
        }
    }
}

struct Parser<'a> {
    names: &'a [String],
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// An error that shows the expression with a mark under the character it is about.
    fn error_at(&self, at: usize, expected: &str) -> Error {
        let (before, behind) = self.text.split_at_checked(at).unwrap_or((self.text, ""));
        let column = before.chars().count();
        let found = match behind.chars().next() {
            Some(found) => format!("{found:?} found"),
            None => "the end found".into(),
        };
        Error::rejected(format!("expression, character {}: {expected}, {found}", column + 1))
            .below([self.text, &format!("{}^", " ".repeat(column))])
            .hint("names with other characters than letters, digits, _ and . go in quotes: 'my-task' + other")
    }

    fn error(&self, expected: &str) -> Error {
        self.error_at(self.at, expected)
    }

    /// What is still to be read.
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes the next character if it is one of `wanted`.
    fn take(&mut self, wanted: &[char]) -> Option<char> {
        self.skip_space();
        let next = self.rest().chars().next().filter(|next| wanted.contains(next))?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn sum(&mut self) -> Result<Value> {
        let mut total = self.product()?;
        loop {
            self.skip_space();
            let at = self.at;
            let Some(sign) = self.take(&['+', '-']) else { return Ok(total) };
            let term = self.product()?.scaled(if sign == '-' { -1.0 } else { 1.0 });
            total = match (total, term) {
                (Value::Scalar(a), Value::Scalar(b)) => Value::Scalar(a + b),
                (Value::Vector(mut a), Value::Vector(b)) => {
                    a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
                    Value::Vector(a)
                }
                _ => {
                    return Err(self
                        .error_at(at, "two task vectors or two numbers to add expected, one of each found; operator"));
                }
            };
        }
    }

    fn product(&mut self) -> Result<Value> {
        let mut total = self.signed()?;
        loop {
            self.skip_space();
            let at = self.at;
            let Some(operator) = self.take(&['*', '/']) else { return Ok(total) };
            let factor = self.signed()?;
            total = match (operator, total, factor) {
                ('*', total, Value::Scalar(factor)) => total.scaled(factor),
                ('*', Value::Scalar(factor), vector) => vector.scaled(factor),
                ('/', total, Value::Scalar(divisor)) if divisor != 0.0 => total.scaled(1.0 / divisor),
                ('/', ..) => return Err(self.error_at(at, "a number other than zero to divide by expected; operator")),
                _ => {
                    return Err(self.error_at(
                        at,
                        "a number on one side of the product expected, two task vectors found; operator",
                    ));
                }
            };
        }
    }

    fn signed(&mut self) -> Result<Value> {
        let mut sign = 1.0;
        while let Some(found) = self.take(&['+', '-']) {
            if found == '-' {
                sign = -sign;
            }
        }
        Ok(self.atom()?.scaled(sign))
    }

    fn atom(&mut self) -> Result<Value> {
        self.skip_space();
        if self.take(&['(']).is_some() {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.error(&format!("at most {MAX_DEPTH} nested parentheses expected")));
            }
            let value = self.sum()?;
            self.take(&[')']).ok_or_else(|| self.error("`)` expected"))?;
            self.depth -= 1;
            return Ok(value);
        }
        let start = self.at;
        if let Some(quote) = self.take(&['\'', '"']) {
            let (name, _) = self
                .rest()
                .split_once(quote)
                .ok_or_else(|| self.error_at(start, "a closing quote for this one expected"))?;
            let value = self.vector(name)?;
            self.at += name.len() + quote.len_utf8();
            return Ok(value);
        }
        let rest = self.rest();
        match rest.chars().next() {
            Some(first) if first.is_ascii_digit() || first == '.' => self.number(),
            Some(first) if first.is_alphabetic() || first == '_' => {
                let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
                let name = rest.split(|c| !is_part(c)).next().unwrap_or_default();
                let value = self.vector(name)?;
                self.at += name.len();
                Ok(value)
            }
            _ => Err(self.error("a task name, a number or `(` expected")),
        }
    }

    fn number(&mut self) -> Result<Value> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let digits = |from: usize| from + bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = digits(0);
        if bytes.get(end) == Some(&b'.') {
            end = digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent_end = digits(end + 1 + sign);
            if exponent_end > end + 1 + sign {
                end = exponent_end;
            }
        }
        let number: f64 = rest.get(..end).unwrap_or_default().parse().map_err(|_| self.error("a number expected"))?;
        self.at += end;
        Ok(Value::Scalar(number))
    }

    fn vector(&self, name: &str) -> Result<Value> {
        let mut alpha = vec![0.0; self.names.len()];
        let task = find_task(self.names, name).map_err(|error| {
            let dashed = self.names.iter().find(|known| known.starts_with(name) && known.contains('-'));
            match dashed {
                Some(known) => error.hint(format!("names with a dash go in quotes: '{known}'")),
                None => error,
            }
        })?;
        add(&mut alpha, task, 1.0);
        Ok(Value::Vector(alpha))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> Vec<String> {
        ["a", "b", "c", "my-task", "x.y_2", "Größe"].map(String::from).to_vec()
    }

    #[test]
    fn expressions_become_weights() {
        let cases: [(&str, [f64; 6]); 9] = [
            ("a", [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            ("a + 0.5*b - c", [1.0, 0.5, -1.0, 0.0, 0.0, 0.0]),
            ("-(a - b) * 2 / 4", [-0.5, 0.5, 0.0, 0.0, 0.0, 0.0]),
            ("2*(3*a + b) - a", [5.0, 2.0, 0.0, 0.0, 0.0, 0.0]),
            ("'my-task' + \"a\"", [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
            ("x.y_2*1e-3", [0.0, 0.0, 0.0, 0.0, 1e-3, 0.0]),
            ("a - - b", [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
            ("(1 + 2) * Größe", [0.0, 0.0, 0.0, 0.0, 0.0, 3.0]),
            ("a*.5+a*2.", [2.5, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ];
        for (text, weights) in cases {
            assert_eq!(expression(&names(), text).unwrap(), weights, "{text}");
        }
    }

    #[test]
    fn malformed_expressions_point_at_the_character() {
        let cases = [
            ("", 1),
            ("a +", 4),
            ("a b", 3),
            ("(a", 3),
            ("a * b", 3),
            ("a + 1", 3),
            ("a / 0", 3),
            ("1 / a", 3),
            ("a ) b", 3),
            ("'a", 1),
            ("a + ?", 5),
            ("ä€ + ", 0),
        ];
        for (text, character) in cases {
            let error = expression(&names(), text).expect_err(text);
            if character > 0 {
                assert!(error.message().contains(&format!("character {character}:")), "{text}: {error}");
            }
        }
        assert!(expression(&names(), "3").unwrap_err().message().contains("plain number"));
        assert!(expression(&names(), "1e400*a").unwrap_err().message().contains("finite"));
        let deep = "(".repeat(100_000);
        assert!(expression(&names(), &deep).is_err());
        assert!(expression(&names(), &format!("{}a", "-".repeat(60_000))).is_ok());
    }

    #[test]
    fn unknown_names_are_met_with_the_nearest() {
        let error = expression(&names(), "my_tusk").unwrap_err();
        assert_eq!(error.hint_text(), Some("did you mean \"my-task\"?"));
        let error = expression(&names(), "my-task").unwrap_err();
        assert_eq!(error.hint_text(), Some("names with a dash go in quotes: 'my-task'"));
        assert!(expression(&names(), "zzz").unwrap_err().hint_text().unwrap().contains("the tasks are a, b"));
    }

    #[test]
    fn words_become_weights() {
        assert_eq!(addition(&names()[..2], &[]).unwrap(), [1.0, 1.0]);
        assert_eq!(addition(&names()[..3], &[("c".into(), 0.5), ("a".into(), 2.0)]).unwrap(), [2.0, 0.0, 0.5]);
        assert_eq!(negation(&names()[..2], "b").unwrap(), [0.0, -1.0]);
        assert_eq!(analogy(&names()[..3], "a", "b", "c").unwrap(), [-1.0, 1.0, 1.0]);
        assert_eq!(analogy(&names()[..3], "a", "a", "c").unwrap(), [0.0, 0.0, 1.0]);
        assert!(negation(&names(), "nobody").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[ab'\"()+*/. 0-9eE-]{0,40}|\\PC{0,20}") {
            let _ = expression(&names(), &text);
        }
    }
}
