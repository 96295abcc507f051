//! Functions of a component with the contract's types.
//!
//! Comparing a function's type with the contract's, field by field, takes longer than making an instance. All instances of a
//! component have functions of the same types, so it is done with the first one; and a component that is kept as compiled code
//! has been through it ([`crate::cache`]).
#![allow(unsafe_code)]

use std::sync::OnceLock;

use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, Instance as Linked, Lift, Lower, TypedFunc,
};
use wasmtime::{Store, format_err};

use crate::call::text;
use crate::error::OtherType;
use crate::instance::State;

/// Exports that have other types than the contract says.
#[derive(Debug)]
pub struct OtherTypes(pub Vec<OtherType>);

impl std::fmt::Display for OtherTypes {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("exports have other types")
    }
}

impl std::error::Error for OtherTypes {}

/// An error of [`Export::find`], if there is one.
pub fn wrong<T>(found: &wasmtime::Result<T>) -> Option<&wasmtime::Error> {
    found.as_ref().err()
}

/// All that is wrong with the types of a component's exports, told at once.
pub fn compared(wrong: &[Option<&wasmtime::Error>]) -> wasmtime::Result<()> {
    let types = |error: &wasmtime::Error| Some(error.downcast_ref::<OtherTypes>()?.0.clone());
    let all: Vec<OtherType> = (wrong.iter().copied().flatten())
        .filter_map(types)
        .flatten()
        .collect();
    if all.is_empty() {
        Ok(())
    } else {
        Err(wasmtime::Error::new(OtherTypes(all)))
    }
}

/// A function that takes `Args` and gives `Answer`: where it is in one component, and whether its type has been compared.
pub struct Export<Args, Answer> {
    index: ComponentExportIndex,
    name: &'static str,
    compared: OnceLock<()>,
    types: std::marker::PhantomData<fn(Args) -> Answer>,
}

impl<Args, Answer> Export<Args, Answer>
where
    Args: ComponentNamedList + Lower,
    Answer: ComponentNamedList + Lift,
{
    /// The export at `index`, which errors call `name`.
    /// `compared`: it is known to have these types.
    pub fn new(
        index: ComponentExportIndex,
        name: &'static str,
        compared: bool,
    ) -> Export<Args, Answer> {
        Export {
            index,
            name,
            compared: compared
                .then_some(())
                .map_or_else(OnceLock::new, OnceLock::from),
            types: std::marker::PhantomData,
        }
    }

    /// Finds it in an instance of its component.
    pub fn find(
        &self,
        store: &mut Store<State>,
        instance: &Linked,
    ) -> wasmtime::Result<TypedFunc<Args, Answer>> {
        if self.compared.get().is_some() {
            let function = (instance.get_func(&mut *store, self.index))
                .ok_or_else(|| format_err!("{} is missing", self.name))?;
            // SAFETY: this very export had these types in another instance, now or before its component was kept: what is kept
            // is found by the digest of the component and by the types here, names the world, and is as it was written. An index is found only
            // in the component that it is of, and a function's type is its component's, not its instance's: the contract has
            // no resources.
            return Ok(unsafe { TypedFunc::new_unchecked(function) });
        }
        let function = instance
            .get_typed_func(store, self.index)
            .map_err(|error| {
                wasmtime::Error::new(OtherTypes(vec![OtherType {
                    export: self.name,
                    problem: text(&error.root_cause().to_string()),
                }]))
            })?;
        let _ = self.compared.set(());
        Ok(function)
    }
}
