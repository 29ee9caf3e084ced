// What every kernel needs: vectors, threads, memory.
//
// The vectors are GCC's and Clang's own (`vector_size`), so that one source serves AVX-512, AVX2 and NEON; only the
// products in gemm.h know instructions by name. Every result is computed by one thread in one fixed order, so it
// depends neither on the number of threads nor on what else is in the batch.
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
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));
typedef int8_t Bytes __attribute__((vector_size(kLanes), aligned(1), may_alias));
typedef uint16_t bf16;

inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
inline void store(float* p, Floats v) { *reinterpret_cast<Floats*>(p) = v; }
inline Floats all(float x) { return Floats{} + x; }
inline Floats greater(Floats a, Floats b) { return a > b ? a : b; }

inline float sum(Floats v) {  // always the same tree
    for (int half = kLanes / 2; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] += v[i + half];
    return v[0];
}

inline float greatest(Floats v) {
    for (int half = kLanes / 2; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] = std::max(v[i], v[i + half]);
    return v[0];
}

// Round to nearest, ties to even, as torch does; finite numbers only.
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

// A vector at once.
inline void store_bf16(bf16* p, Floats v) {
#if defined(__AVX512BF16__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), __m256i(_mm512_cvtneps_pbh(__m512(v))));
#else
    Ints bits = reinterpret_cast<Ints&>(v);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *reinterpret_cast<Halves*>(p) = __builtin_convertvector(bits, Halves);
#endif
}

inline Floats load_bf16(const bf16* p) {
    Ints bits = __builtin_convertvector(*reinterpret_cast<const Halves*>(p), Ints) << 16;
    return reinterpret_cast<Floats&>(bits);
}

// e^x to about 2 units in the last place: 2^n times a polynomial (Cephes), 0 below -87.
inline Floats exponential(Floats x) {
    const Ints too_small = x < -87.0f;
    x = greater(x, all(-87.0f));
    const Floats magic = all(12582912.0f);  // adding it rounds to a whole number
    const Floats n = (x * 1.44269504088896341f + magic) - magic;
    Floats r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    Floats p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
    Floats result = p * reinterpret_cast<Floats&>(power);
    return too_small ? Floats{} : result;
}

// x times the normal distribution function, with erf by Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7).
inline Floats gelu(Floats x) {
    const Floats z = x * 0.70710678118654752f;
    const Floats size = z < 0.0f ? -z : z;
    const Floats t = 1.0f / (1.0f + 0.3275911f * size);
    Floats p = all(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const Floats erf = 1.0f - p * t * exponential(-z * z);
    return 0.5f * x * (1.0f + (z < 0.0f ? -erf : erf));
}

// Memory aligned to cache lines, zeroed; grows, never shrinks.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t n) { reserve(n); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr, other.size_ = 0; }
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

// Memory for what lives as long as a model, zeroed, one piece behind the other in few large regions: in huge pages,
// where the system has them, a pass over all weights looks up a hundred pages and not fifty thousand.
class Arena {
  public:
    Arena() = default;
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    ~Arena() {
        for (const Region& region : regions_) munmap(region.data, region.size);
    }
    void* take(size_t bytes) {
        bytes = (bytes + 63) / 64 * 64;
        if (regions_.empty() || regions_.back().used + bytes > regions_.back().size) {
            const size_t size = (std::max(bytes, kRegion) + kHugePage - 1) / kHugePage * kHugePage;
            void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (data == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
            madvise(data, size, MADV_HUGEPAGE);
#endif
            regions_.push_back({static_cast<char*>(data), size, 0});
        }
        Region& region = regions_.back();
        void* taken = region.data + region.used;
        region.used += bytes;
        total_ += bytes;
        return taken;
    }
    size_t total() const { return total_; }

  private:
    struct Region {
        char* data;
        size_t size, used;
    };
    static constexpr size_t kHugePage = size_t(2) << 20, kRegion = size_t(32) << 20;
    std::vector<Region> regions_;
    size_t total_ = 0;
};

inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

inline void sleep_while(std::atomic<int>& value, int seen) {
#if defined(__linux__)
    syscall(SYS_futex, reinterpret_cast<int*>(&value), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
#else
    (void)value, (void)seen, sched_yield();
#endif
}

inline void wake_all(std::atomic<int>& value) {
#if defined(__linux__)
    syscall(SYS_futex, reinterpret_cast<int*>(&value), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
#else
    (void)value;
#endif
}

// One step of a call: numbered tasks, and how many of them are handed out and done.
struct Phase {
    alignas(64) std::atomic<int> next{0};
    alignas(64) std::atomic<int> done{0};
    std::atomic<int> sleepers{0};
};

// What one thread knows of a call that several work on. All go through the same phases in the same order, and a phase
// is over when its tasks are done, whoever did them: a thread that the system has taken off the processor holds up no
// more than the one task that it is at, and skips what the others did meanwhile. On a machine that is busy with other
// things this is the difference between slower and standing still.
class Member {
  public:
    Member(Phase* phases, int n_phases) : phase_(phases), end_(phases + n_phases) {}

    // Do a phase of `n` tasks, so many neighbours at a time.
    template <class F>
    void each(int n, const F& work, int some = 1) {
        if (phase_ == end_) std::abort();  // the caller announced fewer phases than it has
        Phase& phase = *phase_++;
        for (int i; (i = phase.next.fetch_add(some, std::memory_order_relaxed)) < n;) {
            const int end = std::min(i + some, n);
            for (int task = i; task < end; task++) work(task);
            if (phase.done.fetch_add(end - i, std::memory_order_seq_cst) + end - i == n && phase.sleepers.load())
                wake_all(phase.done);
        }
        for (int spins = 0;; spins++) {
            const int done = phase.done.load(std::memory_order_acquire);
            if (done >= n) return;
            if (spins < kSpins) {
                relax();
            } else {  // who is late needs the processor more than we do
                phase.sleepers.fetch_add(1);
                sleep_while(phase.done, done);
                phase.sleepers.fetch_sub(1);
            }
        }
    }

  private:
    static constexpr int kSpins = 2000;  // some 50 microseconds
    Phase *phase_, *end_;
};

// Had by one call at a time, while it lasts. It knows the process: what a thread of the parent had when a child was
// forked, the child may have, since nobody there will ever give it back.
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

// Runs `work(member, index)` on so many threads. They are OpenMP's, which are torch's, too: threads of our own would
// compete for the processor with those that torch leaves spinning after each of its operations. One call at a time has
// them; another that comes meanwhile works alone.
template <class F>
void run_team(int n_threads, int n_phases, const F& work) {
    static std::atomic<pid_t> holder{0};
    Exclusive threads(holder);
    std::vector<Phase> phases(n_phases);
#if defined(_OPENMP)
    if (n_threads > 1 && threads.mine) {
#pragma omp parallel num_threads(n_threads)
        {
            Member member(phases.data(), n_phases);
            work(member, omp_get_thread_num());
        }
        return;
    }
#endif
    Member member(phases.data(), n_phases);
    work(member, 0);
}

}  // namespace sotto
