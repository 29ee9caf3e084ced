// Products of bytes: rows of bytes without sign times packed weights of bytes with sign, by VNNI; and
// small ones of float32.
//
// What both networks that tell speakers apart are made of. Only for processors with VNNI: elsewhere
// PyTorch is as fast.
#pragma once

#include "base.h"

namespace sotto {

#if defined(__AVX512VNNI__)

// Rows of bytes of the left side: `groups` times 4 numbers each, `stride` bytes apart.
struct ByteRows {
    const uint8_t* data;
    size_t stride;
    int groups;
};

// A layer: weight (n / 32, k / 4, 32, 4), and what makes the next layer's bytes of its sums.
struct ByteLayer {
    const int8_t* weight;
    const float *scale, *shift;  // (n,)
};

constexpr int kMostRows = 12, kColumns = 2 * kLanes;
typedef uint8_t Bytes32 __attribute__((vector_size(32), aligned(1), may_alias));

// R rows times one panel of 32 columns; the left side is `n` stretches of rows beside each other.
template <int R>
void multiply_bytes(const ByteRows* left, int n, int row, const int8_t* weight, int32_t* sums) {
    __m512i acc[R][2];
    for (int i = 0; i < R; i++) acc[i][0] = acc[i][1] = _mm512_setzero_si512();
    for (int s = 0; s < n; s++) {
        const uint8_t* a = left[s].data + row * left[s].stride;
        const size_t stride = left[s].stride;
        for (int g = 0; g < left[s].groups; g++, weight += 128) {
            const __m512i b0 = _mm512_loadu_si512(weight), b1 = _mm512_loadu_si512(weight + 64);
#pragma GCC unroll 12
            for (int i = 0; i < R; i++) {
                int32_t four;
                std::memcpy(&four, a + i * stride + 4 * g, 4);
                const __m512i x = _mm512_set1_epi32(four);
                acc[i][0] = _mm512_dpbusd_epi32(acc[i][0], x, b0);
                acc[i][1] = _mm512_dpbusd_epi32(acc[i][1], x, b1);
            }
        }
    }
    for (int i = 0; i < R; i++)
        for (int j = 0; j < 2; j++) _mm512_storeu_si512(sums + i * kColumns + j * kLanes, acc[i][j]);
}

typedef void (*ByteKernel)(const ByteRows*, int, int, const int8_t*, int32_t*);
constexpr ByteKernel kByteKernels[kMostRows] = {
    multiply_bytes<1>, multiply_bytes<2>, multiply_bytes<3>, multiply_bytes<4>,
    multiply_bytes<5>, multiply_bytes<6>, multiply_bytes<7>, multiply_bytes<8>,
    multiply_bytes<9>, multiply_bytes<10>, multiply_bytes<11>, multiply_bytes<12>};

// All rows times a layer of `n_out` columns; `out(row, column, sums)` gets each vector of sums.
template <class Out>
void multiply(const ByteRows* left, int n, int rows, const int8_t* weight, int n_out, const Out& out) {
    size_t panel = 0;
    for (int s = 0; s < n; s++) panel += size_t(left[s].groups) * 4 * kColumns;
    alignas(64) int32_t sums[kMostRows * kColumns];
    for (int column = 0; column < n_out; column += kColumns, weight += panel)
        for (int row = 0; row < rows; row += kMostRows) {
            const int count = std::min(kMostRows, rows - row);
            kByteKernels[count - 1](left, n, row, weight, sums);
            for (int i = 0; i < count; i++)
                for (int j = 0; j < kColumns; j += kLanes) {
                    const IntVec whole = *reinterpret_cast<const IntVec*>(sums + i * kColumns + j);
                    out(row + i, column + j, __builtin_convertvector(whole, FloatVec));
                }
        }
}

// Round to bytes from 0 to 255.
inline void store_bytes(uint8_t* to, FloatVec x) {
    const __m512i whole = _mm512_cvtps_epi32(__m512(maximum(x, FloatVec{})));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(whole));
}
inline FloatVec load_bytes(const uint8_t* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return FloatVec(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
}

// `x` (k,) times `weight` (k, N), in float32; the sums of several vectors grow side by side.
template <int N>
inline void matrix(const float* weight, const float* bias, const float* x, int k, float* out) {
    FloatVec sums[N / kLanes];
    for (int v = 0; v < N / kLanes; v++) sums[v] = load(bias + v * kLanes);
    for (int i = 0; i < k; i++)
        for (int v = 0; v < N / kLanes; v++) sums[v] += load(weight + i * N + v * kLanes) * x[i];
    for (int v = 0; v < N / kLanes; v++) store(out + v * kLanes, sums[v]);
}

#endif

}  // namespace sotto
