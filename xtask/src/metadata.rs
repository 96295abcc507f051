//! Reading wheels' own metadata: which CUDA packages does this torch require?
//!
//! The texts are those of `*.dist-info/METADATA`; their headers end at the first empty line.

/// The package that stands for a set of CUDA libraries, each of them an extra.
pub const TOOLKIT: &str = "cuda-toolkit";

/// The CUDA requirements of a torch wheel: `nvidia-*` and `cuda-toolkit[...]`, without their environment markers.
/// The Python-only parts (`triton`, `cuda-bindings`) stay out: nothing here runs Python on a GPU.
pub fn cuda_requirements(metadata: &str) -> Vec<String> {
    requirements(metadata)
        .filter(|(_, marker)| !marker.contains("extra =="))
        .map(|(requirement, _)| requirement)
        .filter(|requirement| {
            requirement.starts_with("nvidia-") || requirement.starts_with(TOOLKIT)
        })
        .collect()
}

/// `cuda-toolkit[cublas,cudart]==13.0.2` as `(["cublas", "cudart"], "cuda-toolkit==13.0.2")`.
pub fn split_extras(requirement: &str) -> Option<(Vec<&str>, String)> {
    let (name, rest) = requirement.split_once('[')?;
    let (extras, version) = rest.split_once(']')?;
    let extras = extras.split(',').map(str::trim).collect();
    Some((extras, format!("{name}{version}")))
}

/// What the named extras of a wheel require.
pub fn extra_requirements(metadata: &str, extras: &[&str]) -> Vec<String> {
    requirements(metadata)
        .filter(|(_, marker)| extras.iter().any(|extra| names_extra(marker, extra)))
        .map(|(requirement, _)| requirement)
        .collect()
}

fn names_extra(marker: &str, extra: &str) -> bool {
    let marker = marker.replace(' ', "").replace('\'', "\"");
    marker.contains(&format!("extra==\"{extra}\""))
}

/// Each requirement with its marker, which may be empty.
fn requirements(metadata: &str) -> impl Iterator<Item = (String, &str)> {
    metadata
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("Requires-Dist:"))
        .map(|requirement| requirement.split_once(';').unwrap_or((requirement, "")))
        // Older metadata writes the version in brackets: `nvidia-nccl-cu13 (==2.28.9)`.
        .map(|(requirement, marker)| (requirement.replace([' ', '(', ')'], ""), marker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_cuda_libraries_and_nothing_else() {
        let metadata = "\
Metadata-Version: 2.4
Name: torch
Requires-Dist: filelock
Requires-Dist: cuda-toolkit[cublas,cudart]==13.0.2; platform_system == \"Linux\"
Requires-Dist: cuda-bindings<14,>=13.0.3; platform_system == \"Linux\"
Requires-Dist: nvidia-cudnn-cu13==9.19.0.56; platform_system == \"Linux\"
Requires-Dist: nvidia-nccl-cu13 (==2.28.9)
Requires-Dist: triton==3.6.0; platform_system == \"Linux\"
Requires-Dist: nvidia-something==1; extra == \"opt\"

The description may say
Requires-Dist: nvidia-decoy==1
";
        assert_eq!(
            cuda_requirements(metadata),
            [
                "cuda-toolkit[cublas,cudart]==13.0.2",
                "nvidia-cudnn-cu13==9.19.0.56",
                "nvidia-nccl-cu13==2.28.9",
            ]
        );
    }

    #[test]
    fn expands_the_extras_of_the_toolkit() {
        let (extras, toolkit) = split_extras("cuda-toolkit[cublas,cudart]==13.0.2").unwrap();
        assert_eq!(
            (extras.as_slice(), toolkit.as_str()),
            (["cublas", "cudart"].as_slice(), "cuda-toolkit==13.0.2")
        );
        assert_eq!(split_extras("nvidia-nccl-cu13==2.28.9"), None);

        let metadata = "\
Name: cuda-toolkit
Requires-Dist: nvidia-cublas==13.1.0.3.*; (sys_platform == \"linux\") and extra == \"cublas\"
Requires-Dist: nvidia-cuda-runtime==13.0.96.*; extra == 'cudart'
Requires-Dist: nvidia-npp==13.0.1.2.*; extra == \"npp\"
";
        assert_eq!(
            extra_requirements(metadata, &extras),
            [
                "nvidia-cublas==13.1.0.3.*",
                "nvidia-cuda-runtime==13.0.96.*"
            ]
        );
    }
}
