//! Who may ask: what can be exchanged while a node runs.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::config::{ApiKey, NodeConfig, Operator};

/// Keys of clients and tokens of operators.
#[derive(Clone, Debug)]
pub struct Access {
    /// Clients' keys by name; none: nobody has to show one.
    pub keys: BTreeMap<String, ApiKey>,
    /// Operators' tokens.
    pub operator: Operator,
}

/// Without a token the operators' listener must not be reached from elsewhere, and it is.
#[derive(Debug, Error)]
#[error(
    "operator.tokens is empty now, and the operators' listener is beyond this machine: keep a token, or change operator.listen \
     and start the node anew"
)]
pub struct Unguarded;

impl Access {
    /// As the configuration has it.
    pub fn of(config: &NodeConfig) -> Access {
        Access {
            keys: config.api.keys.clone(),
            operator: config.operator.clone(),
        }
    }

    /// What takes the place of this: the keys and tokens of `config`, on the listener that is there.
    ///
    /// # Errors
    /// Anybody could do anything then.
    pub fn renewed(&self, config: &NodeConfig) -> Result<Access, Unguarded> {
        let beyond = self
            .operator
            .listen
            .is_some_and(|it| !it.ip().is_loopback());
        if beyond && config.operator.tokens.is_empty() {
            return Err(Unguarded);
        }
        Ok(Access {
            keys: config.api.keys.clone(),
            operator: Operator {
                tokens: config.operator.tokens.clone(),
                ..self.operator.clone()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OperatorRole, OperatorToken};

    #[test]
    fn a_listener_beyond_this_machine_keeps_a_token() {
        let on = |address: &str, tokens: &[&str]| Operator {
            listen: Some(address.parse().unwrap()),
            tokens: (tokens.iter())
                .map(|name| {
                    let token = OperatorToken {
                        sha256: String::new(),
                        role: OperatorRole::Read,
                    };
                    ((*name).to_owned(), token)
                })
                .collect(),
            ..Operator::default()
        };
        let renewed = |is: Operator, becomes: Operator| {
            let access = Access {
                keys: BTreeMap::new(),
                operator: is,
            };
            let config = NodeConfig {
                operator: becomes,
                ..NodeConfig::default()
            };
            let renewed = access.renewed(&config).ok()?;
            assert_eq!(renewed.operator.listen, access.operator.listen);
            Some(renewed.operator.tokens.into_keys().collect::<Vec<_>>())
        };
        let (here, beyond) = ("127.0.0.1:8081", "10.0.0.1:8081");
        assert_eq!(renewed(on(here, &["a"]), on(here, &[])), Some(Vec::new()));
        // The address that the file has now does not count: the listener stays where it is.
        assert_eq!(renewed(on(beyond, &["a"]), on(here, &[])), None);
        let expected = Some(vec!["b".to_owned()]);
        assert_eq!(renewed(on(beyond, &["a"]), on(here, &["b"])), expected);
    }
}
