// Microkernels: a few rows times one panel of a packed weight, on vectors or on AMX tiles.
//
// Layout. Both sides are read in k-groups: 32 bits of consecutive k, that is one float32, two
// bfloat16 or four int8. The weight is packed in panels of 64 columns (n):
//
//     panel (n / 64) | k-group (k / group_size) | column (64) | k within the group
//
// so that one loop serves all three types: broadcast a k-group of the left side, multiply it with a
// vector of columns, accumulate. Columns behind n and k behind its end are zero. It is also the
// layout that AMX wants: 16 k-groups of 16 columns are a tile.
//
// Order of summation: each number is accumulated along k from 0 on in one register lane, whatever
// the number of rows is and whichever microkernel computes it. Sums of bfloat16 on tiles are
// rounded differently from those on vectors; which of the two computes a product depends on its k
// alone.
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

// ------------------------------------------------------------------------------------------------
// AMX: tiles of 16 rows and 64 bytes
// ------------------------------------------------------------------------------------------------

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
constexpr bool kHasTiles = true;
#else
constexpr bool kHasTiles = false;
#endif
constexpr int kTileRows = 16;
constexpr int kTileGroups = 16;    // k-groups of a tile of the left side, or of a weight
constexpr int kTileColumns = 16;   // of a tile of a weight, or of the result
constexpr int kMinInt8Rows = 6;    // for fewer, vectors are as fast

// Whether a product of `groups` k-groups and `rows` rows is computed on tiles. Integer sums are
// exact, so there the number of rows may decide; sums of bfloat16 are rounded.
template <int T>
constexpr bool on_tiles(int groups, int rows) {
    return kHasTiles && T != kFloat32 && groups % kTileGroups == 0 &&
           (T == kBfloat16 || rows >= kMinInt8Rows);
}

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
// What ldtilecfg reads. Tiles 0 to 3 hold sums, 4 and 5 rows of the left side, 6 and 7 the weight.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {};
    uint8_t rows[16] = {};

    TileConfig(int upper, int lower) {  // rows of tiles 0, 1, 4 and of tiles 2, 3, 5
        const int n[8] = {upper, upper, lower, lower, upper, lower, kTileGroups, kTileGroups};
        for (int i = 0; i < 8; i++) bytes_per_row[i] = 64, rows[i] = uint8_t(n[i]);
    }
};

// sums[C] += left[A] * weight[B]; numbers of tiles must be constants.
#define SOTTO_TILE_PRODUCT(T, C, A, B)   \
    if constexpr (T == kBfloat16)        \
        _tile_dpbf16ps(C, A, B);         \
    else                                 \
        _tile_dpbsud(C, A, B)

// Up to 16 rows times the 64 columns of a panel, into `sums` (16, 64).
template <int T>
void multiply_tile_row(const int32_t* a, size_t lda, const char* b, int groups, float* sums) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < groups; k += kTileGroups, b += kTileGroups * kPanelStep) {
        _tile_loadd(4, a + k, lda * 4);
        _tile_loadd(6, b, kPanelStep);
        SOTTO_TILE_PRODUCT(T, 0, 4, 6);
        _tile_loadd(7, b + 64, kPanelStep);
        SOTTO_TILE_PRODUCT(T, 1, 4, 7);
        _tile_loadd(6, b + 128, kPanelStep);
        SOTTO_TILE_PRODUCT(T, 2, 4, 6);
        _tile_loadd(7, b + 192, kPanelStep);
        SOTTO_TILE_PRODUCT(T, 3, 4, 7);
    }
    _tile_stored(0, sums, kPanelStep);
    _tile_stored(1, sums + 16, kPanelStep);
    _tile_stored(2, sums + 32, kPanelStep);
    _tile_stored(3, sums + 48, kPanelStep);
}

// From 17 to 32 rows times 32 columns of a panel, into `sums` (32, 64): each tile that is loaded
// serves two products.
template <int T>
void multiply_tile_square(const int32_t* a, size_t lda, const char* b, int groups, float* sums) {
    const int32_t* lower = a + kTileRows * lda;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < groups; k += kTileGroups, b += kTileGroups * kPanelStep) {
        _tile_loadd(4, a + k, lda * 4);
        _tile_loadd(6, b, kPanelStep);
        SOTTO_TILE_PRODUCT(T, 0, 4, 6);
        _tile_loadd(5, lower + k, lda * 4);
        SOTTO_TILE_PRODUCT(T, 2, 5, 6);
        _tile_loadd(7, b + 64, kPanelStep);
        SOTTO_TILE_PRODUCT(T, 1, 4, 7);
        SOTTO_TILE_PRODUCT(T, 3, 5, 7);
    }
    float* lower_sums = sums + kTileRows * kPanelWidth;
    _tile_stored(0, sums, kPanelStep);
    _tile_stored(1, sums + 16, kPanelStep);
    _tile_stored(2, lower_sums, kPanelStep);
    _tile_stored(3, lower_sums + 16, kPanelStep);
}
#undef SOTTO_TILE_PRODUCT

// See `multiply_panel`. The compiler does not know that tiles are loaded from memory, so a barrier
// keeps the stores before them. PyTorch uses the tiles as well: nothing is left in them.
template <int T, class Out>
inline void multiply_panel_on_tiles(
    const int32_t* a, size_t lda, int rows, const char* panel, int groups, const Out& out) {
    alignas(64) float sums[2 * kTileRows * kPanelWidth];
    for (int row = 0; row < rows; row += 2 * kTileRows) {
        const int n = std::min(2 * kTileRows, rows - row), upper = std::min(kTileRows, n);
        const TileConfig config(upper, n > upper ? n - upper : upper);
        asm volatile("" : : "r"(&config) : "memory");
        if (row == 0 || n < 2 * kTileRows) _tile_loadconfig(&config);
        const int32_t* first = a + row * lda;
        if (n > upper) {
            multiply_tile_square<T>(first, lda, panel, groups, sums);
            multiply_tile_square<T>(first, lda, panel + kPanelStep / 2, groups, sums + 32);
        } else {
            multiply_tile_row<T>(first, lda, panel, groups, sums);
        }
        for (int i = 0; i < n; i++)
            for (int column = 0; column < kPanelWidth; column += kLanes)
                out(row + i, column, sums + i * kPanelWidth + column);
    }
    _tile_release();
}
#endif

// Multiply `rows` rows with one panel; calls `out(row, column, sums)` for every vector of sums,
// with `column` counted within the panel.
template <int T, class Out>
inline void multiply_panel(
    const int32_t* a, size_t lda, int rows, const char* panel, int groups, const Out& out) {
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
    if constexpr (T != kFloat32)
        if (on_tiles<T>(groups, rows))
            return multiply_panel_on_tiles<T>(a, lda, rows, panel, groups, out);
#endif
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

}  // namespace sotto
