// What tch does not reach of CUDA: streams of one's own, graphs, and what the device's memory holds.
//
// A library of its own: the program links libtorch's CPU half alone, and this needs the CUDA half, so it is opened
// behind that half, which has its symbols (device.rs). Nothing is thrown across: every function gives null, or what
// went wrong as a string that the caller frees.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <cstring>

namespace {

template <class F> char *guarded(F work) {
    try {
        work();
        return nullptr;
    } catch (const c10::Error &error) {
        return strdup(error.what_without_backtrace());
    } catch (const std::exception &error) {
        return strdup(error.what());
    } catch (...) {
        return strdup("an exception of unknown kind");
    }
}

}  // namespace

#define SHOWN __attribute__((visibility("default")))

extern "C" {

// What this thread asks of the device goes to a stream of its own from now on, and f32 is f32: convolutions would
// otherwise round to 10 bits.
SHOWN char *msao_cuda_enter(int device) {
    return guarded([&] {
        at::globalContext().setAllowTF32CuDNN(false);
        c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(false, (c10::DeviceIndex)device));
    });
}

// Waits for what this thread asked of the device.
SHOWN char *msao_cuda_wait(int device) {
    return guarded([&] { c10::cuda::getCurrentCUDAStream((c10::DeviceIndex)device).synchronize(); });
}

// Gives back memory that no tensor holds any more.
SHOWN char *msao_cuda_release() {
    return guarded([&] { c10::cuda::CUDACachingAllocator::emptyCache(); });
}

// Bytes that tensors hold, and the most that they held since `restart` was last set.
SHOWN char *msao_cuda_memory(int device, int restart, uint64_t *now, uint64_t *peak) {
    return guarded([&] {
        using namespace c10::CachingAllocator;
        auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats((c10::DeviceIndex)device);
        auto held = stats.allocated_bytes[static_cast<size_t>(StatType::AGGREGATE)];
        *now = (uint64_t)held.current;
        *peak = (uint64_t)held.peak;
        if (restart) c10::cuda::CUDACachingAllocator::resetPeakStats((c10::DeviceIndex)device);
    });
}

// A copy of a tensor of the device's, in memory that the device writes by itself, which takes a fraction of the time that
// other memory takes. It is kept for the next copy when it is let go. Waits for it.
SHOWN char *msao_cuda_fetch(const at::Tensor *from, at::Tensor **made) {
    return guarded([&] {
        auto copy = at::empty(from->sizes(), from->options().device(at::kCPU).pinned_memory(true));
        copy.copy_(*from, true);
        c10::cuda::getCurrentCUDAStream(from->device().index()).synchronize();
        *made = new at::Tensor(std::move(copy));
    });
}

// A name for memory that graphs share.
SHOWN char *msao_cuda_graph_pool(uint64_t *pool) {
    return guarded([&] { *pool = at::cuda::graph_pool_handle().second; });
}

// What is asked of the device until the end is noted, not done. `pool` names the memory that graphs share.
SHOWN char *msao_cuda_graph_begin(at::cuda::CUDAGraph **graph, uint64_t pool) {
    return guarded([&] {
        auto made = std::make_unique<at::cuda::CUDAGraph>();
        // Another model's thread may go on meanwhile.
        made->capture_begin({0, pool}, cudaStreamCaptureModeThreadLocal);
        *graph = made.release();
    });
}

// Ends the noting; the graph can be replayed where this succeeds, and has to be freed either way.
SHOWN char *msao_cuda_graph_end(at::cuda::CUDAGraph *graph) {
    return guarded([&] { graph->capture_end(); });
}

SHOWN char *msao_cuda_graph_replay(at::cuda::CUDAGraph *graph) {
    return guarded([&] { graph->replay(); });
}

SHOWN char *msao_cuda_graph_free(at::cuda::CUDAGraph *graph) {
    return guarded([&] { delete graph; });
}
}
