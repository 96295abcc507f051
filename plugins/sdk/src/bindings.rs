//! What `wit/` says, as Rust. The records are made once; each world takes them from there.

#![allow(
    missing_docs,
    unused_qualifications,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "generated"
)]

pub mod shared {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package msao:sdk; world shared { import msao:offload/types@0.1.0; }",
        world: "msao:sdk/shared",
        generate_all,
        generate_unused_types: true,
        disable_custom_section_link_helpers: true,
        additional_derives: [PartialEq],
    });
}

pub mod offload_policy {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "msao:offload/offload-policy",
        with: { "msao:offload/types@0.1.0": crate::bindings::shared::msao::offload::types },
        pub_export_macro: true,
        export_macro_name: "export_offload_policy",
        default_bindings_module: "::msao_plugin::bindings::offload_policy",
        disable_custom_section_link_helpers: true,
    });
}

pub mod explanation {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package msao:sdk; world explanation { export msao:offload/explanation@0.1.0; }",
        world: "msao:sdk/explanation",
        with: { "msao:offload/types@0.1.0": crate::bindings::shared::msao::offload::types },
        pub_export_macro: true,
        export_macro_name: "export_explanation",
        default_bindings_module: "::msao_plugin::bindings::explanation",
        disable_custom_section_link_helpers: true,
    });
}

pub mod probe_postprocessor {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "msao:offload/probe-postprocessor",
        with: { "msao:offload/types@0.1.0": crate::bindings::shared::msao::offload::types },
        pub_export_macro: true,
        export_macro_name: "export_probe_postprocessor",
        default_bindings_module: "::msao_plugin::bindings::probe_postprocessor",
        disable_custom_section_link_helpers: true,
    });
}
