// What every kernel needs: SIMD vectors, memory, parallel loops.
//
// Vectors are the vector extension of GCC and Clang (`vector_size`), so that one source serves
// AVX-512, AVX2 and NEON; only the microkernels in gemm.h use intrinsics.
//
// Order of summation: every number of a result is computed by one thread in one fixed order, which
// depends on the shapes of the model and the width of a vector alone. So a result depends neither
// on the number of threads nor on what else is in the batch. For this reason nothing is compiled
// with
// -ffast-math, and no sum is split over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sotto {

#if defined(__AVX512F__)
constexpr int kLanes = 16;  // float32 numbers in a vector
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float FloatVec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int32_t IntVec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef uint16_t UInt16Vec __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));
typedef int8_t Int8Vec __attribute__((vector_size(kLanes), aligned(1), may_alias));
typedef uint16_t bf16;

inline FloatVec load(const float* p) { return *reinterpret_cast<const FloatVec*>(p); }
inline void store(float* p, FloatVec v) { *reinterpret_cast<FloatVec*>(p) = v; }
inline FloatVec broadcast(float x) { return FloatVec{} + x; }
inline FloatVec maximum(FloatVec a, FloatVec b) { return a > b ? a : b; }
inline FloatVec absolute(FloatVec x) { return x < 0.0f ? -x : x; }

// Sum over the lanes, always along the same binary tree.
inline float reduce_sum(FloatVec v) {
#if defined(__AVX512F__)  // what the loop says; compilers take it through memory
    const __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(__m512(v)), 1));
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(__m512(v)), upper);
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
#else
    for (int half = kLanes / 2; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] += v[i + half];
    return v[0];
#endif
}

inline int32_t reduce_sum(IntVec v) {
    int32_t total = 0;
    for (int i = 0; i < kLanes; i++) total += v[i];
    return total;
}

inline float reduce_max(FloatVec v) {
    for (int half = kLanes / 2; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] = std::max(v[i], v[i + half]);
    return v[0];
}

// The largest of `n` numbers; -inf for none.
inline float max_value(const float* x, int n) {
    FloatVec largest = broadcast(-INFINITY);
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) largest = maximum(largest, load(x + i));
    float value = reduce_max(largest);
    for (; i < n; i++) value = std::max(value, x[i]);
    return value;
}

// Round to nearest, ties to even, as PyTorch does; for finite numbers only.
inline bf16 to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float from_bf16(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// The same for a whole vector.
inline void store_bf16(bf16* p, FloatVec v) {
#if defined(__AVX512BF16__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), __m256i(_mm512_cvtneps_pbh(__m512(v))));
#else
    IntVec bits = reinterpret_cast<IntVec&>(v);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *reinterpret_cast<UInt16Vec*>(p) = __builtin_convertvector(bits, UInt16Vec);
#endif
}

// int8 as float32.
inline FloatVec load_int8(const int8_t* p) {
#if defined(__AVX512F__)  // two instructions, where compilers convert number by number
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return FloatVec(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
#else
    return __builtin_convertvector(*reinterpret_cast<const Int8Vec*>(p), FloatVec);
#endif
}
inline FloatVec load_bf16(const bf16* p) {
#if defined(__AVX512F__)  // one instruction, for which compilers take several
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    IntVec bits = IntVec(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
#else
    IntVec bits = __builtin_convertvector(*reinterpret_cast<const UInt16Vec*>(p), IntVec) << 16;
#endif
    return reinterpret_cast<FloatVec&>(bits);
}

// Round to the nearest integer, ties to even; for |x| < 2^22. 1.5 * 2^23 has no fraction bits.
inline FloatVec round(FloatVec x) {
    const FloatVec magic = broadcast(12582912.0f);
    return (x + magic) - magic;
}

// e^x to about 2 units in the last place: 2^n times a polynomial (Cephes); 0 below -87.
inline FloatVec exp(FloatVec x) {
    const IntVec too_small = x < -87.0f;
    x = maximum(x, broadcast(-87.0f));
    const FloatVec n = round(x * 1.44269504088896341f);
    FloatVec r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    FloatVec p = broadcast(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    IntVec power = (__builtin_convertvector(n, IntVec) + 127) << 23;
    FloatVec result = p * reinterpret_cast<FloatVec&>(power);
    return too_small ? FloatVec{} : result;
}

// GELU (exact, not the tanh form): x times the normal distribution function, with erf by Abramowitz
// and Stegun 7.1.26 (absolute error 1.5e-7).
inline FloatVec gelu(FloatVec x) {
    const FloatVec z = x * 0.70710678118654752f;
    const FloatVec size = absolute(z);
    const FloatVec t = 1.0f / (1.0f + 0.3275911f * size);
    FloatVec p = broadcast(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const FloatVec erf = 1.0f - p * t * exp(-z * z);
    return 0.5f * x * (1.0f + (z < 0.0f ? -erf : erf));
}

// Working memory, aligned to cache lines and zeroed when it is allocated; grows, never shrinks.
// Growing loses the contents.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t n) { reserve(n); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) {
        other.data_ = nullptr, other.size_ = 0;
    }
    ~Buffer() { std::free(data_); }

    T* reserve(size_t n) {
        if (n > size_) {
            std::free(data_);
            data_ = nullptr, size_ = 0;
            const size_t bytes = (n * sizeof(T) + 63) / 64 * 64;
            if (!(data_ = static_cast<T*>(std::aligned_alloc(64, bytes)))) throw std::bad_alloc();
            std::memset(static_cast<void*>(data_), 0, bytes);
            size_ = n;
        }
        return data_;
    }
    operator T*() const { return data_; }

  private:
    T* data_ = nullptr;
    size_t size_ = 0;
};

// Bump allocator for the weights, which live as long as the model: zeroed, in few large regions. In
// huge pages, where the system has them, a pass over all weights needs about a hundred TLB entries
// instead of fifty thousand.
class Arena {
  public:
    Arena() = default;
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    ~Arena() {
        for (const Region& region : regions_) munmap(region.data, region.size);
    }
    void* allocate(size_t bytes) {
        bytes = (bytes + 63) / 64 * 64;
        if (regions_.empty() || regions_.back().used + bytes > regions_.back().size) {
            const size_t size = (std::max(bytes, kRegion) + kHugePage - 1) / kHugePage * kHugePage;
            const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
            void* data = mmap(nullptr, size, protection, flags, -1, 0);
            if (data == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
            madvise(data, size, MADV_HUGEPAGE);
#endif
            regions_.push_back({static_cast<char*>(data), size, 0});
        }
        Region& region = regions_.back();
        void* allocated = region.data + region.used;
        region.used += bytes;
        return allocated;
    }
    // Address and size in use of region `i`; null behind the last.
    void* region(int i, size_t& used) const {
        if (i < 0 || size_t(i) >= regions_.size()) return nullptr;
        used = regions_[i].used;
        return regions_[i].data;
    }

  private:
    struct Region {
        char* data;
        size_t size, used;
    };
    static constexpr size_t kHugePage = size_t(2) << 20, kRegion = size_t(32) << 20;
    std::vector<Region> regions_;
};

inline void cpu_relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Sleep as long as `value` is `expected`; may wake without a reason.
inline void futex_wait(std::atomic<int>& value, int expected) {
#if defined(__linux__)
    int* word = reinterpret_cast<int*>(&value);
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
#else
    (void)value, (void)expected, sched_yield();
#endif
}

inline void futex_wake_all(std::atomic<int>& value) {
#if defined(__linux__)
    int* word = reinterpret_cast<int*>(&value);
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
#else
    (void)value;
#endif
}

// The counters of one parallel loop: how many of its tasks are handed out and done.
struct Phase {
    alignas(64) std::atomic<int> next{0};
    alignas(64) std::atomic<int> done{0};
    std::atomic<int> sleepers{0};
};

// One thread of a parallel region. All workers go through the same phases (parallel loops) in the
// same order, and a phase is over when its tasks are done, whichever worker did them. So a thread
// that the system has descheduled delays the others by no more than the one task that it is at, and
// afterwards skips the phases that the others have finished. On a busy machine that is the
// difference between slower and standing still.
class Worker {
  public:
    Worker(Phase* phases, int n_phases) : phase_(phases), end_(phases + n_phases) {}

    // Run `body(i)` for i from 0 to n over all workers, `grain` consecutive tasks at a time;
    // returns when all are done.
    template <class F>
    void parallel_for(int n, const F& body, int grain = 1) {
        if (phase_ == end_) std::abort();  // the region was given fewer phases than it has loops
        Phase& phase = *phase_++;
        for (int i; (i = phase.next.fetch_add(grain, std::memory_order_relaxed)) < n;) {
            const int end = std::min(i + grain, n);
            for (int task = i; task < end; task++) body(task);
            const int done = phase.done.fetch_add(end - i, std::memory_order_seq_cst) + end - i;
            if (done == n && phase.sleepers.load()) futex_wake_all(phase.done);
        }
        for (int spins = 0;; spins++) {
            const int done = phase.done.load(std::memory_order_acquire);
            if (done >= n) return;
            if (spins < kSpins) {
                cpu_relax();
            } else {  // the processor may be needed by the worker that is late
                phase.sleepers.fetch_add(1);
                futex_wait(phase.done, done);
                phase.sleepers.fetch_sub(1);
            }
        }
    }

  private:
    static constexpr int kSpins = 2000;  // about 50 microseconds
    Phase *phase_, *end_;
};

// Held by at most one parallel region at a time. It records the process: where a process was forked
// while a thread of the parent held it, the child may take it, as no thread there will release it.
class Exclusive {
  public:
    explicit Exclusive(std::atomic<pid_t>& holder) : holder_(holder), own_(getpid()) {
        pid_t before = holder.load(std::memory_order_relaxed);
        mine = before != own_ && holder.compare_exchange_strong(before, own_, std::memory_order_acquire);
    }
    ~Exclusive() {
        if (mine) holder_.store(0, std::memory_order_release);
    }
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;
    bool mine;

  private:
    std::atomic<pid_t>& holder_;
    const pid_t own_;
};

// Run `body(worker, thread_index)` on `n_threads` threads. They are OpenMP's, which PyTorch uses as
// well: threads of our own would compete for the processor with those that PyTorch leaves spinning
// after each of its operations. One region at a time has them; one that begins meanwhile in another
// thread runs on that thread alone.
template <class F>
void parallel_region(int n_threads, int n_phases, const F& body) {
    static std::atomic<pid_t> holder{0};
    Exclusive threads(holder);
    std::vector<Phase> phases(n_phases);
#if defined(_OPENMP)
    if (n_threads > 1 && threads.mine) {
#pragma omp parallel num_threads(n_threads)
        {
            Worker worker(phases.data(), n_phases);
            body(worker, omp_get_thread_num());
        }
        return;
    }
#endif
    Worker worker(phases.data(), n_phases);
    body(worker, 0);
}

}  // namespace sotto
