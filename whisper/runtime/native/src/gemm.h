// Matrix products with a packed weight, in float32, bfloat16 or int8, and layer normalization.
//
//     out (m, n) = a (m, k) * weight (n, k)^T * scales + bias (n)
//
// Layout. Both sides are read in k-groups: 32 bits of consecutive k, that is one float32, two
// bfloat16 or four int8. The weight is packed in panels of 64 columns (n):
//
//     panel (n / 64) | k-group (k / group_size) | column (64) | k within the group
//
// so that one loop serves all three types: broadcast a k-group of the left side, multiply it with a
// vector of columns, accumulate. Columns behind n and k behind its end are zero.
//
// int8. Weights have one scale for each column, the left side one for each row (dynamic
// quantization): a row's result never depends on the other rows. Packed weights are stored as w +
// 128 without sign, as the VNNI instructions want it; 128 times the sum of the row is subtracted
// afterwards.
//
// Order of summation: each number of `out` is accumulated along k from 0 on in one register lane,
// whatever m is and whichever microkernel computes it.
#pragma once

#include "base.h"

namespace sotto {

enum DType { kFloat32 = 0, kBfloat16 = 1, kInt8 = 2 };
constexpr int kPanelWidth = 64;                        // columns
constexpr int kPanelVectors = kPanelWidth / kLanes;    // vectors of columns
constexpr int kGroupBytes = 4;                         // of one k-group of one column
constexpr int kPanelStep = kPanelWidth * kGroupBytes;  // bytes of one k-group of a whole panel

inline int group_size(int dtype) { return dtype == kFloat32 ? 1 : dtype == kBfloat16 ? 2 : 4; }
inline int n_groups(int dtype, int k) { return (k + group_size(dtype) - 1) / group_size(dtype); }
inline int n_panels(int n) { return (n + kPanelWidth - 1) / kPanelWidth; }

// What convolutions and the encoder's attention compute in, where the matrices are of `dtype`.
// Without bfloat16 instructions float32 is faster.
inline int unquantized_dtype(int dtype) {
#if defined(__AVX512BF16__)
    return dtype == kFloat32 ? kFloat32 : kBfloat16;
#else
    return dtype == kBfloat16 ? kBfloat16 : kFloat32;
#endif
}

// ------------------------------------------------------------------------------------------------
// Microkernels
// ------------------------------------------------------------------------------------------------

// acc += weight k-groups `b` (kLanes columns) * the k-group `a` of one row, broadcast.
template <int T>
struct Dot;

template <>
struct Dot<kFloat32> {
    typedef FloatVec Sum;
    static inline FloatVec accumulate(FloatVec acc, IntVec b, int32_t a) {
        float x;
        std::memcpy(&x, &a, 4);
#if defined(__AVX512F__)
        return FloatVec(_mm512_fmadd_ps(__m512(b), _mm512_set1_ps(x), __m512(acc)));
#else
        return acc + reinterpret_cast<FloatVec&>(b) * x;
#endif
    }
};

template <>
struct Dot<kBfloat16> {
    typedef FloatVec Sum;
    static inline FloatVec accumulate(FloatVec acc, IntVec b, int32_t a) {
#if defined(__AVX512BF16__)
        const __m512bh row = __m512bh(_mm512_set1_epi32(a));
        return FloatVec(_mm512_dpbf16_ps(__m512(acc), __m512bh(__m512i(b)), row));
#else
        const int32_t low = a << 16, high = a & int32_t(0xffff0000);
        float x, y;
        std::memcpy(&x, &low, 4), std::memcpy(&y, &high, 4);
        IntVec even = b << 16, odd = b & int32_t(0xffff0000);
        acc = acc + reinterpret_cast<FloatVec&>(even) * x;
        return acc + reinterpret_cast<FloatVec&>(odd) * y;
#endif
    }
};

template <>
struct Dot<kInt8> {  // b: w + 128, unsigned; a: signed
    typedef IntVec Sum;
    static inline IntVec accumulate(IntVec acc, IntVec b, int32_t a) {
#if defined(__AVX512VNNI__)
        return IntVec(_mm512_dpbusd_epi32(__m512i(acc), __m512i(b), _mm512_set1_epi32(a)));
#elif defined(__AVX2__)
        const __m256i w = __m256i(b), x = _mm256_set1_epi32(a), bytes = _mm256_set1_epi16(255);
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
        const __m256i odd = _mm256_srai_epi16(x, 8);
        const __m256i p = _mm256_madd_epi16(_mm256_and_si256(w, bytes), even);
        const __m256i q = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), odd);
        return IntVec(_mm256_add_epi32(__m256i(acc), _mm256_add_epi32(p, q)));
#else
        for (int i = 0; i < 4; i++) acc += ((b >> (8 * i)) & 255) * int32_t(int8_t(a >> (8 * i)));
        return acc;
#endif
    }
};

// Multiply R rows `a` with N vectors of columns of a panel `b` over `groups` k-groups, into `tile`
// (R, N, kLanes): float32, for int8 int32. `lda` is in k-groups.
template <int T, int R, int N>
void microkernel(const int32_t* a, size_t lda, const char* b, int groups, float* tile) {
    typename Dot<T>::Sum acc[R][N] = {};
    for (int k = 0; k < groups; k++, b += kPanelStep) {
        IntVec column[N];
        for (int j = 0; j < N; j++)
            column[j] = *reinterpret_cast<const IntVec*>(b + kGroupBytes * kLanes * j);
#pragma GCC unroll 12
        for (int i = 0; i < R; i++)
            for (int j = 0; j < N; j++)
                acc[i][j] = Dot<T>::accumulate(acc[i][j], column[j], a[i * lda + k]);
    }
    for (int i = 0; i < R; i++)
        for (int j = 0; j < N; j++)
            *reinterpret_cast<typename Dot<T>::Sum*>(tile + (i * N + j) * kLanes) = acc[i][j];
}

typedef void (*Microkernel)(const int32_t*, size_t, const char*, int, float*);

// Choose the microkernel for up to `rows` rows, as many as fit the registers; returns how many rows
// it takes, and sets `n_vectors` to its vectors of columns.
#if defined(__AVX512F__)
constexpr int kTileVectors = 24;  // accumulators, of 32 registers
template <int T>
inline int pick_microkernel(int rows, int& n_vectors, Microkernel& kernel) {
    n_vectors = rows <= 6 ? 4 : 2;
    switch (std::min(rows, 12)) {
        case 1: kernel = microkernel<T, 1, 4>; return 1;
        case 2: kernel = microkernel<T, 2, 4>; return 2;
        case 3: kernel = microkernel<T, 3, 4>; return 3;
        case 4: kernel = microkernel<T, 4, 4>; return 4;
        case 5: kernel = microkernel<T, 5, 4>; return 5;
        case 6: kernel = microkernel<T, 6, 4>; return 6;
        case 7: kernel = microkernel<T, 7, 2>; return 7;
        case 8: kernel = microkernel<T, 8, 2>; return 8;
        case 9: kernel = microkernel<T, 9, 2>; return 9;
        case 10: kernel = microkernel<T, 10, 2>; return 10;
        case 11: kernel = microkernel<T, 11, 2>; return 11;
        default: kernel = microkernel<T, 12, 2>; return 12;
    }
}
#else
constexpr int kTileVectors = 12;  // accumulators, of 16 registers
template <int T>
inline int pick_microkernel(int rows, int& n_vectors, Microkernel& kernel) {
    n_vectors = 4;
    switch (std::min(rows, 3)) {
        case 1: kernel = microkernel<T, 1, 4>; return 1;
        case 2: kernel = microkernel<T, 2, 4>; return 2;
        default: kernel = microkernel<T, 3, 4>; return 3;
    }
}
#endif

// Multiply `rows` rows with one panel; calls `out(row, column, sums)` for every vector of sums,
// with `column` counted within the panel.
template <int T, class Out>
inline void multiply_panel(
    const int32_t* a, size_t lda, int rows, const char* panel, int groups, const Out& out) {
    alignas(64) float tile[kTileVectors * kLanes];
    for (int row = 0; row < rows;) {
        int n;
        Microkernel kernel;
        const int taken = pick_microkernel<T>(rows - row, n, kernel);
        for (int first = 0; first < kPanelVectors; first += n) {
            kernel(a + row * lda, lda, panel + 4 * kLanes * first, groups, tile);
            for (int i = 0; i < taken; i++)
                for (int j = 0; j < n; j++)
                    out(row + i, (first + j) * kLanes, tile + (i * n + j) * kLanes);
        }
        row += taken;
    }
}

// ------------------------------------------------------------------------------------------------
// The two sides of a product
// ------------------------------------------------------------------------------------------------

// Rows of the left side of a product.
struct ActivationView {
    const int32_t* groups = nullptr;
    size_t stride = 0;             // k-groups from one row to the next
    const float* scale = nullptr;  // (rows,) int8 only
    const int32_t* sum = nullptr;  // (rows,) int8 only: of the quantized numbers
};

// The left side of products: rows of at most `width` numbers, converted to `dtype`.
class Activations {
  public:
    void reserve(int dtype, size_t rows, size_t width) {
        dtype_ = dtype, stride_ = n_groups(dtype, int(width));
        groups_.reserve(rows * stride_);
        scale_.reserve(rows), sum_.reserve(rows);
    }
    // Convert `n` floats into `row`; n is a multiple of 16.
    void set_row(int row, const float* x, int n) {
        int32_t* to = row_data(row);
        if (dtype_ == kFloat32) {
            std::memcpy(to, x, n * 4);
        } else if (dtype_ == kBfloat16) {
            bf16* rounded = reinterpret_cast<bf16*>(to);
            for (int i = 0; i < n; i += kLanes) store_bf16(rounded + i, load(x + i));
        } else {
            quantize_row(row, x, n, reinterpret_cast<int8_t*>(to));
        }
    }
    int32_t* row_data(int row) { return groups_ + row * stride_; }
    ActivationView view(int first = 0) const {
        return {groups_ + first * stride_, stride_, scale_ + first, sum_ + first};
    }

  private:
    int dtype_ = 0;
    size_t stride_ = 0;
    Buffer<int32_t> groups_, sum_;
    Buffer<float> scale_;

    // Symmetric: the largest magnitude becomes 127.
    void quantize_row(int row, const float* x, int n, int8_t* to) {
        FloatVec largest = {};
        for (int i = 0; i < n; i += kLanes) largest = maximum(largest, absolute(load(x + i)));
        const float peak = reduce_max(largest);
        const float inverse = peak > 0 ? 127 / peak : 0;
        IntVec total = {};
        for (int i = 0; i < n; i += kLanes) {
            const IntVec whole = __builtin_convertvector(round(load(x + i) * inverse), IntVec);
            total += whole;
            *reinterpret_cast<Int8Vec*>(to + i) = __builtin_convertvector(whole, Int8Vec);
        }
        int32_t s = 0;
        for (int i = 0; i < kLanes; i++) s += total[i];
        scale_[row] = peak / 127, sum_[row] = s;
    }
};

// A linear layer: its weight (n, k) = (out_features, in_features) packed, with scales and bias.
struct Linear {
    int dtype, n, k, groups;
    char* packed;         // (n_panels, groups, 64) k-groups
    float *scale, *bias;  // (n_panels * 64,), zero behind n

    Linear(Arena& arena, int dtype_, int n_, int k_)
        : dtype(dtype_), n(n_), k(k_), groups(n_groups(dtype_, k_)) {
        const size_t columns = size_t(n_panels(n)) * kPanelWidth;
        packed = static_cast<char*>(arena.allocate(size_t(n_panels(n)) * groups * kPanelStep));
        scale = static_cast<float*>(arena.allocate(columns * sizeof(float)));
        bias = static_cast<float*>(arena.allocate(columns * sizeof(float)));
    }

    // Pack `count` rows `w` (count, k) of the weight (columns of the product) from `first` on, with
    // their bias `b` (count,), which may be null.
    void pack_rows(int first, int count, const float* w, const float* b, int n_threads) {
        parallel_region(n_threads, 1, [&](Worker& worker, int) {
            worker.parallel_for(
                count, [&](int i) { pack_row(first + i, w + size_t(i) * k, b ? b[i] : 0); }, 16);
        });
    }

    // Read row `column` of the weight, (k,), as it is after packing.
    void unpack_row(int column, float* out) const {
        const char* at = column_data(column);
        for (int group = 0; group < groups; group++, at += kPanelStep)
            for (int i = 0; i < group_size(dtype) && group * group_size(dtype) + i < k; i++) {
                float& x = out[group * group_size(dtype) + i];
                if (dtype == kFloat32) std::memcpy(&x, at, 4);
                if (dtype == kBfloat16) x = from_bf16(reinterpret_cast<const bf16*>(at)[i]);
                if (dtype == kInt8) x = float(int(uint8_t(at[i])) - 128) * scale[column];
            }
    }

    // Multiply `rows` rows with one panel; `out(row, column, values)` gets every vector of columns,
    // with scales and bias applied and `column` counted within the matrix.
    template <class Out>
    inline void multiply(const ActivationView& a, int rows, int panel, const Out& out) const {
        const int first = panel * kPanelWidth;
        const char* b = packed + size_t(panel) * groups * kPanelStep;
        auto add_bias = [&](int row, int column, const float* sums) {
            out(row, first + column, load(sums) + load(bias + first + column));
        };
        auto dequantize = [&](int row, int column, const float* sums) {
            const IntVec whole = *reinterpret_cast<const IntVec*>(sums) - 128 * a.sum[row];
            const FloatVec both_scales = load(scale + first + column) * a.scale[row];
            const FloatVec value = __builtin_convertvector(whole, FloatVec) * both_scales;
            out(row, first + column, value + load(bias + first + column));
        };
        if (dtype == kInt8)
            multiply_panel<kInt8>(a.groups, a.stride, rows, b, groups, dequantize);
        else if (dtype == kBfloat16)
            multiply_panel<kBfloat16>(a.groups, a.stride, rows, b, groups, add_bias);
        else
            multiply_panel<kFloat32>(a.groups, a.stride, rows, b, groups, add_bias);
    }

  private:
    char* column_data(int column) const {
        const size_t panel = size_t(column / kPanelWidth) * groups * kPanelStep;
        return packed + panel + column % kPanelWidth * kGroupBytes;
    }
    void pack_row(int column, const float* row, float b) {
        char* at = column_data(column);
        float largest = 0;
        for (int j = 0; j < k; j++) largest = std::max(largest, std::fabs(row[j]));
        scale[column] = dtype == kInt8 ? largest / 127 : 1;
        bias[column] = b;
        const float inverse = largest > 0 ? 127 / largest : 0;
        for (int group = 0; group < groups; group++, at += kPanelStep)
            pack_group(row, group, inverse, at);
    }
    void pack_group(const float* row, int group, float inverse, char* at) {
        if (dtype == kFloat32) {
            std::memcpy(at, row + group, 4);
        } else if (dtype == kBfloat16) {
            bf16 pair[2] = {};
            for (int i = 0; i < 2 && 2 * group + i < k; i++) pair[i] = to_bf16(row[2 * group + i]);
            std::memcpy(at, pair, 4);
        } else {
            for (int i = 0; i < 4; i++) {
                const int j = 4 * group + i;
                const float x = j < k ? std::nearbyint(row[j] * inverse) : 0;
                at[i] = char(uint8_t(int(x) + 128));
            }
        }
    }
};

// Layer normalization, with epsilon 1e-5: variance in a second pass over the row.
struct LayerNorm {
    const float* weight;  // (n,)
    const float* bias;    // (n,)

    void apply(const float* x, float* out, int n) const {
        FloatVec total = {};
        for (int i = 0; i < n; i += kLanes) total += load(x + i);
        const float mean = reduce_sum(total) / n;
        FloatVec squares = {};
        for (int i = 0; i < n; i += kLanes) {
            const FloatVec d = load(x + i) - mean;
            squares += d * d;
        }
        const float inverse = 1 / std::sqrt(reduce_sum(squares) / n + 1e-5f);
        for (int i = 0; i < n; i += kLanes)
            store(out + i, (load(x + i) - mean) * inverse * load(weight + i) + load(bias + i));
    }
};

}  // namespace sotto
