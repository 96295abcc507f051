// Stand-ins where the kernels are not built: msao_supported says no, so nothing else is called.
extern "C" {
int msao_supported() { return 0; }
void msao_pack_rows() {}
void msao_unpack_row() {}
void msao_linear() {}
void msao_gather() {}
void msao_rms_norm() {}
void msao_gated_silu() {}
void msao_add() {}
void msao_rotate_and_store() {}
void msao_attend() {}
}
