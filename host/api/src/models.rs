//! `GET /v1/models` and `GET /v1/models/{id}`.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// A model that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "object", rename = "model")]
pub struct Model {
    /// What a request calls it.
    pub id: String,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Whose it is: the operator's word.
    pub owned_by: String,
}

/// All models that can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "object", rename = "list")]
pub struct ModelList {
    /// One each.
    pub data: Vec<Model>,
}

impl ModelList {
    /// The model of this name.
    ///
    /// # Errors
    /// 404 where there is none.
    pub fn get(&self, id: &str) -> Result<&Model, ApiError> {
        let found = self.data.iter().find(|model| model.id == id);
        found.ok_or_else(|| ApiError::model_not_found(id))
    }
}
