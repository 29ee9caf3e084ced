// Products of a few or many rows with a packed matrix, in float32, bfloat16 or int8.
//
// All three read the left side in units of 32 bits (one float, two bfloat16, four int8) and the right side as vectors
// of columns of such units, so that one loop serves all: broadcast a unit, multiply, add up. 64 columns lie beside each
// other (a panel).
#pragma once

#include "base.h"

namespace sotto {

enum Type { kFloat = 0, kBfloat = 1, kInt8 = 2 };
constexpr int kPanel = 64;      // columns
constexpr int kPanelBytes = 256;  // of one unit of the depth
constexpr int kBlocks = kPanel / kLanes;
constexpr int kMaxRows = 12;  // that attention takes at once

// In what attention and convolutions compute where matrices are of `type`: bfloat16 only beats float32 in hardware.
inline int inner_type(int type) {
#if defined(__AVX512BF16__)
    return type == kFloat ? kFloat : kBfloat;
#else
    return type == kBfloat ? kBfloat : kFloat;
#endif
}
inline int per_unit(int type) { return type == kFloat ? 1 : type == kBfloat ? 2 : 4; }
inline int n_panels(int n) { return (n + kPanel - 1) / kPanel; }

template <int T>
struct Dot;

template <>
struct Dot<kFloat> {
    typedef Floats Sum;
    static inline Floats step(Floats acc, Ints b, int32_t a) {
        float x;
        std::memcpy(&x, &a, 4);
#if defined(__AVX512F__)
        return Floats(_mm512_fmadd_ps(__m512(b), _mm512_set1_ps(x), __m512(acc)));
#else
        return acc + reinterpret_cast<Floats&>(b) * x;
#endif
    }
};

template <>
struct Dot<kBfloat> {
    typedef Floats Sum;
    static inline Floats step(Floats acc, Ints b, int32_t a) {
#if defined(__AVX512BF16__)
        return Floats(_mm512_dpbf16_ps(__m512(acc), __m512bh(__m512i(b)), __m512bh(_mm512_set1_epi32(a))));
#else
        const int32_t low = a << 16, high = a & int32_t(0xffff0000);
        float x, y;
        std::memcpy(&x, &low, 4), std::memcpy(&y, &high, 4);
        Ints even = b << 16, odd = b & int32_t(0xffff0000);
        acc = acc + reinterpret_cast<Floats&>(even) * x;
        return acc + reinterpret_cast<Floats&>(odd) * y;
#endif
    }
};

template <>
struct Dot<kInt8> {  // the packed side holds w + 128 without sign, the rows are signed
    typedef Ints Sum;
    static inline Ints step(Ints acc, Ints b, int32_t a) {
#if defined(__AVX512VNNI__)
        return Ints(_mm512_dpbusd_epi32(__m512i(acc), __m512i(b), _mm512_set1_epi32(a)));
#elif defined(__AVX2__)
        const __m256i w = __m256i(b), x = _mm256_set1_epi32(a), bytes = _mm256_set1_epi16(255);
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), odd = _mm256_srai_epi16(x, 8);
        const __m256i p = _mm256_madd_epi16(_mm256_and_si256(w, bytes), even);
        const __m256i q = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), odd);
        return Ints(_mm256_add_epi32(__m256i(acc), _mm256_add_epi32(p, q)));
#else
        for (int i = 0; i < 4; i++) acc += ((b >> (8 * i)) & 255) * int32_t(int8_t(a >> (8 * i)));
        return acc;
#endif
    }
};

// Multiply R rows with N vectors of columns; `tile` takes the sums, row by row, as floats or whole numbers.
template <int T, int R, int N>
void micro(const int32_t* a, size_t lda, const char* b, int depth, float* tile) {
    typename Dot<T>::Sum acc[R][N] = {};
    for (int k = 0; k < depth; k++, b += kPanelBytes) {
        Ints column[N];
        for (int j = 0; j < N; j++) column[j] = *reinterpret_cast<const Ints*>(b + 4 * kLanes * j);
#pragma GCC unroll 12
        for (int i = 0; i < R; i++)
            for (int j = 0; j < N; j++) acc[i][j] = Dot<T>::step(acc[i][j], column[j], a[i * lda + k]);
    }
    for (int i = 0; i < R; i++)
        for (int j = 0; j < N; j++)
            *reinterpret_cast<typename Dot<T>::Sum*>(tile + (i * N + j) * kLanes) = acc[i][j];
}

typedef void (*Micro)(const int32_t*, size_t, const char*, int, float*);

// How many rows the next call takes, as many as fit the registers, and how many vectors of columns; and its kernel.
#if defined(__AVX512F__)
constexpr int kTile = 24;  // vectors of sums
template <int T>
inline int pick(int rows, int& n, Micro& kernel) {
    n = rows <= 6 ? 4 : 2;
    switch (std::min(rows, 12)) {
        case 1: kernel = micro<T, 1, 4>; return 1;
        case 2: kernel = micro<T, 2, 4>; return 2;
        case 3: kernel = micro<T, 3, 4>; return 3;
        case 4: kernel = micro<T, 4, 4>; return 4;
        case 5: kernel = micro<T, 5, 4>; return 5;
        case 6: kernel = micro<T, 6, 4>; return 6;
        case 7: kernel = micro<T, 7, 2>; return 7;
        case 8: kernel = micro<T, 8, 2>; return 8;
        case 9: kernel = micro<T, 9, 2>; return 9;
        case 10: kernel = micro<T, 10, 2>; return 10;
        case 11: kernel = micro<T, 11, 2>; return 11;
        default: kernel = micro<T, 12, 2>; return 12;
    }
}
#else
constexpr int kTile = 12;
template <int T>
inline int pick(int rows, int& n, Micro& kernel) {
    n = 4;
    switch (std::min(rows, 3)) {
        case 1: kernel = micro<T, 1, 4>; return 1;
        case 2: kernel = micro<T, 2, 4>; return 2;
        default: kernel = micro<T, 3, 4>; return 3;
    }
}
#endif

// Multiply `rows` rows with one panel; `out(row, column, sums)` gets every vector of sums.
template <int T, class Out>
inline void multiply_panel(const int32_t* a, size_t lda, int rows, const char* panel, int depth, const Out& out) {
    alignas(64) float tile[kTile * kLanes];
    for (int row = 0; row < rows;) {
        int n;
        Micro kernel;
        const int taken = pick<T>(rows - row, n, kernel);
        for (int block = 0; block < kBlocks; block += n) {
            kernel(a + row * lda, lda, panel + 4 * kLanes * block, depth, tile);
            for (int i = 0; i < taken; i++)
                for (int j = 0; j < n; j++)
                    out(row + i, (block + j) * kLanes, tile + (i * n + j) * kLanes);
        }
        row += taken;
    }
}

// Rows on the left of a product, as it wants them.
struct Rows {
    const int32_t* units = nullptr;
    size_t stride = 0;              // units from one row to the next
    const float* scale = nullptr;   // int8: what 1 stands for, by row
    const int32_t* sum = nullptr;   // int8: of the row's numbers
};

// A matrix (n, k) packed, with what its products need.
struct Linear {
    int type, n, k, depth;
    char* packed;
    float *scale, *bias;  // by column, zero behind the last

    Linear(Arena& arena, int type_, int n_, int k_)
        : type(type_), n(n_), k(k_), depth((k_ + per_unit(type_) - 1) / per_unit(type_)) {
        packed = static_cast<char*>(arena.take(size_t(n_panels(n)) * depth * kPanelBytes));
        scale = static_cast<float*>(arena.take(size_t(n_panels(n)) * kPanel * sizeof(float)));
        bias = static_cast<float*>(arena.take(size_t(n_panels(n)) * kPanel * sizeof(float)));
    }
    const char* panel(int i) const { return packed + size_t(i) * depth * kPanelBytes; }

    // Take rows of the matrix (columns of the product) from `first` on; `b` may be null.
    void fill(int first, int count, const float* w, const float* b, int n_threads) {
        run_team(n_threads, 1, [&](Member& team, int) {
            team.each(count, [&](int i) { fill(first + i, w + size_t(i) * k, b ? b[i] : 0); }, 16);
        });
    }

    // Give row `column` of the matrix back, as it is after packing.
    void read(int column, float* out) const {
        const char* at = packed + size_t(column / kPanel) * depth * kPanelBytes + column % kPanel * 4;
        for (int unit = 0; unit < depth; unit++, at += kPanelBytes)
            for (int i = 0; i < per_unit(type) && unit * per_unit(type) + i < k; i++) {
                float& x = out[unit * per_unit(type) + i];
                if (type == kFloat) std::memcpy(&x, at, 4);
                if (type == kBfloat) x = from_bf16(reinterpret_cast<const bf16*>(at)[i]);
                if (type == kInt8) x = float(int(uint8_t(at[i])) - 128) * scale[column];
            }
    }

    // One panel of the product of all `rows`; `out(row, column, values)` gets a vector of columns with
    // scale and bias applied.
    template <class Out>
    inline void multiply(const Rows& a, int rows, int panel_index, const Out& out) const {
        const int first = panel_index * kPanel;
        const char* at = panel(panel_index);
        if (type == kInt8)
            multiply_panel<kInt8>(a.units, a.stride, rows, at, depth, [&](int row, int column, const float* sums) {
                Ints whole = *reinterpret_cast<const Ints*>(sums) - 128 * a.sum[row];
                Floats value = __builtin_convertvector(whole, Floats) * (load(scale + first + column) * a.scale[row]);
                out(row, first + column, value + load(bias + first + column));
            });
        else if (type == kBfloat)
            multiply_panel<kBfloat>(a.units, a.stride, rows, at, depth, [&](int row, int column, const float* sums) {
                out(row, first + column, load(sums) + load(bias + first + column));
            });
        else
            multiply_panel<kFloat>(a.units, a.stride, rows, at, depth, [&](int row, int column, const float* sums) {
                out(row, first + column, load(sums) + load(bias + first + column));
            });
    }

  private:
    void fill(int column, const float* row, float b) {
        char* at = packed + size_t(column / kPanel) * depth * kPanelBytes + column % kPanel * 4;
        float largest = 0;
        for (int j = 0; j < k; j++) largest = std::max(largest, std::fabs(row[j]));
        scale[column] = type == kInt8 ? largest / 127 : 1;
        bias[column] = b;
        const float inverse = largest > 0 ? 127 / largest : 0;
        for (int unit = 0; unit < depth; unit++, at += kPanelBytes) pack_unit(row, unit, inverse, at);
    }
    void pack_unit(const float* row, int unit, float inverse, char* at) {
        if (type == kFloat) {
            std::memcpy(at, row + unit, 4);
        } else if (type == kBfloat) {
            bf16 pair[2] = {to_bf16(row[2 * unit]), 2 * unit + 1 < k ? to_bf16(row[2 * unit + 1]) : bf16(0)};
            std::memcpy(at, pair, 4);
        } else {
            for (int i = 0; i < 4; i++) {
                const float x = 4 * unit + i < k ? std::nearbyint(row[4 * unit + i] * inverse) : 0;
                at[i] = char(uint8_t(int(x) + 128));
            }
        }
    }
};

// Memory for the left side of products: rows of at most `width` numbers, in the form of `type`.
class Left {
  public:
    void reserve(int type, size_t rows, size_t width) {
        type_ = type, stride_ = (width + per_unit(type) - 1) / per_unit(type);
        units_.reserve(rows * stride_);
        scale_.reserve(rows), sum_.reserve(rows);
    }
    // Take a row of `n` floats.
    void set(int row, const float* x, int n) {
        int32_t* to = units_ + row * stride_;
        if (type_ == kFloat) {
            std::memcpy(to, x, n * 4);
        } else if (type_ == kBfloat) {
            for (int i = 0; i < n; i += kLanes) store_bf16(reinterpret_cast<bf16*>(to) + i, load(x + i));
        } else {
            quantise(row, x, n, reinterpret_cast<int8_t*>(to));
        }
    }
    int32_t* row(int i) { return units_ + i * stride_; }
    Rows rows(int first = 0) const { return {units_ + first * stride_, stride_, scale_ + first, sum_ + first}; }

  private:
    int type_ = 0;
    size_t stride_ = 0;
    Buffer<int32_t> units_, sum_;
    Buffer<float> scale_;

    void quantise(int row, const float* x, int n, int8_t* to) {  // n is a multiple of 16
        Floats largest = {};
        for (int i = 0; i < n; i += kLanes) {
            const Floats v = load(x + i);
            largest = greater(largest, v < 0.0f ? -v : v);
        }
        const float peak = greatest(largest);
        const float inverse = peak > 0 ? 127 / peak : 0;
        const Floats magic = all(12582912.0f);
        Ints total = {};
        for (int i = 0; i < n; i += kLanes) {
            const Ints whole = __builtin_convertvector((load(x + i) * inverse + magic) - magic, Ints);
            total += whole;
            *reinterpret_cast<Bytes*>(to + i) = __builtin_convertvector(whole, Bytes);
        }
        int32_t s = 0;
        for (int i = 0; i < kLanes; i++) s += total[i];
        scale_[row] = peak / 127, sum_[row] = s;
    }
};

// Scale and shift a row to mean 0 and variance 1.
struct Norm {
    const float* weight;
    const float* bias;

    void apply(const float* x, float* out, int n) const {
        Floats total = {};
        for (int i = 0; i < n; i += kLanes) total += load(x + i);
        const float mean = sum(total) / n;
        Floats squares = {};
        for (int i = 0; i < n; i += kLanes) {
            const Floats d = load(x + i) - mean;
            squares += d * d;
        }
        const float inverse = 1 / std::sqrt(sum(squares) / n + 1e-5f);
        for (int i = 0; i < n; i += kLanes)
            store(out + i, (load(x + i) - mean) * inverse * load(weight + i) + load(bias + i));
    }
};

}  // namespace sotto
