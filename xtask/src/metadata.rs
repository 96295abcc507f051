//! Reading a wheel's own metadata: which CUDA packages does this torch require?

/// The CUDA requirements of a torch wheel, ready for pip: `nvidia-*` and `cuda-toolkit`, without their environment
/// markers. The Python-only parts (`triton`, `cuda-bindings`) stay out: nothing here runs Python on a GPU.
///
/// `metadata` is the text of `torch-*.dist-info/METADATA`; its headers end at the first empty line.
pub fn cuda_requirements(metadata: &str) -> Vec<String> {
    metadata
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("Requires-Dist:"))
        .filter(|requirement| !requirement.contains("extra =="))
        .filter_map(|requirement| requirement.split(';').next())
        .map(str::trim)
        .filter(|requirement| {
            requirement.starts_with("nvidia-") || requirement.starts_with("cuda-toolkit")
        })
        // Older metadata writes the version in brackets: `nvidia-nccl-cu13 (==2.28.9)`.
        .map(|requirement| requirement.replace([' ', '(', ')'], ""))
        .collect()
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
}
