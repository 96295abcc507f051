//! The vocabulary of MSAO: types, formulas and the coupled sampler, without I/O.
