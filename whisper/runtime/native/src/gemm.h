// Matrix products with a packed weight, in float32, bfloat16 or int8, and layer normalization.
//
//     out (m, n) = a (m, k) * weight (n, k)^T * scales + bias (n)
//
// int8. Weights have one scale for each column, the left side one for each row (dynamic
// quantization): a row's result never depends on the other rows. Packed weights are stored as w +
// 128 without sign, as the VNNI instructions want it; 128 times the sum of the row is subtracted
// afterwards.
//
// The left side has one digit or two. A few channels of a row of Whisper's decoder are 20 times as
// large as the others, which are left with 3 of 8 bits; so a number there is 128 * high + low, two
// int8 digits of 7 bits in two rows of the product. Where a product is bound by reading the weight,
// the second row costs nothing.
//
// Layout and order of summation: see microkernels.h.
#pragma once

#include "microkernels.h"

namespace sotto {

// What convolutions and the encoder's attention compute in, for a compute type of `dtype`. Without
// bfloat16 instructions float32 is faster.
inline int unquantized_dtype(int dtype) {
#if defined(__AVX512BF16__)
    return dtype == kFloat32 ? kFloat32 : kBfloat16;
#else
    return dtype == kBfloat16 ? kBfloat16 : kFloat32;
#endif
}

// What the matrices are held in that int8 hurts most, where it is asked for: the encoder's, those of
// the cross-attention's keys and values, and the second ones of the decoder's MLPs. On tiles a
// product of many rows is faster in bfloat16 than in int8 on vectors.
inline int sensitive_dtype(int dtype) { return dtype == kInt8 && kHasTiles ? kBfloat16 : dtype; }

// ------------------------------------------------------------------------------------------------
// The two sides of a product
// ------------------------------------------------------------------------------------------------

// k-groups of a weight in memory. Behind k there are zeros up to a whole tile where that is little: of
// 80 mel bands three frames are 7.5 tiles, and would be left to vectors. What stands there on the
// left side, the next row or the slack behind the last, is finite and counts nothing.
inline int weight_groups(int dtype, int k) {
    const int groups = n_groups(dtype, k);
    if (!kHasTiles || dtype != kBfloat16 || groups < 4 * kTileGroups) return groups;
    return (groups + kTileGroups - 1) / kTileGroups * kTileGroups;
}

// Rows of the left side of a product.
struct ActivationView {
    const int32_t* groups = nullptr;
    size_t stride = 0;             // k-groups from one row to the next
    const float* scale = nullptr;  // (rows,) int8 only
    const int32_t* sum = nullptr;  // (rows, n_digits) int8 only: of the quantized numbers
    int n_digits = 1;              // int8: rows of groups that are one row
};

// The left side of products: rows of at most `width` numbers, converted to `dtype`.
class Activations {
  public:
    void reserve(int dtype, size_t rows, size_t width, int n_digits = 1) {
        dtype_ = dtype, stride_ = n_groups(dtype, int(width));
        n_digits_ = dtype == kInt8 ? n_digits : 1;
        groups_.reserve(rows * n_digits_ * stride_ + kTileGroups);  // see `weight_groups`
        scale_.reserve(rows), sum_.reserve(rows * n_digits_);
    }
    // Convert `n` floats into `row`; n is a multiple of 16.
    void set_row(int row, const float* x, int n) {
        int32_t* to = row_data(row);
        if (dtype_ == kFloat32) {
            std::memcpy(to, x, n * 4);
        } else if (dtype_ == kBfloat16) {
            bf16* rounded = reinterpret_cast<bf16*>(to);
            for (int i = 0; i < n; i += kLanes) store_bf16(rounded + i, load(x + i));
        } else if (n_digits_ == 1) {
            quantize_row(row, x, n, reinterpret_cast<int8_t*>(to));
        } else {
            auto* high = reinterpret_cast<int8_t*>(to);
            quantize_row_finely(row, x, n, high, high + kGroupBytes * stride_);
        }
    }
    int32_t* row_data(int row) { return groups_ + row * n_digits_ * stride_; }
    ActivationView view(int first = 0) const {
        const size_t row = size_t(first) * n_digits_;
        return {groups_ + row * stride_, stride_, scale_ + first, sum_ + row, n_digits_};
    }

  private:
    int dtype_ = 0, n_digits_ = 1;
    size_t stride_ = 0;
    Buffer<int32_t> groups_, sum_;
    Buffer<float> scale_;

    static float peak_of(const float* x, int n) {
        FloatVec largest = {};
        for (int i = 0; i < n; i += kLanes) largest = maximum(largest, absolute(load(x + i)));
        return reduce_max(largest);
    }
    // Symmetric: the largest magnitude becomes 127.
    void quantize_row(int row, const float* x, int n, int8_t* to) {
        const float peak = peak_of(x, n);
        const float inverse = peak > 0 ? 127 / peak : 0;
        IntVec total = {};
        for (int i = 0; i < n; i += kLanes) {
            const IntVec whole = __builtin_convertvector(round(load(x + i) * inverse), IntVec);
            total += whole;
            *reinterpret_cast<Int8Vec*>(to + i) = __builtin_convertvector(whole, Int8Vec);
        }
        scale_[row] = peak / 127, sum_[row] = reduce_sum(total);
    }
    // The same in two digits: the largest magnitude becomes 127 * 128, and `low` is from 0 to 127.
    void quantize_row_finely(int row, const float* x, int n, int8_t* high, int8_t* low) {
        constexpr float kLargest = 127 * 128;
        const float peak = peak_of(x, n);
        const float inverse = peak > 0 ? kLargest / peak : 0;
        IntVec total_high = {}, total_low = {};
        for (int i = 0; i < n; i += kLanes) {
            const IntVec level = __builtin_convertvector(round(load(x + i) * inverse), IntVec);
            const IntVec a = level >> 7, b = level & 127;
            total_high += a, total_low += b;
            *reinterpret_cast<Int8Vec*>(high + i) = __builtin_convertvector(a, Int8Vec);
            *reinterpret_cast<Int8Vec*>(low + i) = __builtin_convertvector(b, Int8Vec);
        }
        scale_[row] = peak / kLargest;
        sum_[2 * row] = reduce_sum(total_high), sum_[2 * row + 1] = reduce_sum(total_low);
    }
};

// A linear layer: its weight (n, k) = (out_features, in_features) packed, with scales and bias.
struct Linear {
    int dtype, n, k, groups;
    char* packed;                 // (n_panels, groups, 64) k-groups
    float *scale, *bias;          // (n_panels * 64,), zero behind n
    int8_t* remainder = nullptr;  // (n, k) int8, where kept: what rounding left, in 256ths

    Linear(Arena& arena, int dtype_, int n_, int k_, bool keep_remainder)
        : dtype(dtype_), n(n_), k(k_), groups(weight_groups(dtype_, k_)) {
        const size_t columns = size_t(n_panels(n)) * kPanelWidth;
        packed = static_cast<char*>(arena.allocate(size_t(n_panels(n)) * groups * kPanelStep));
        scale = static_cast<float*>(arena.allocate(columns * sizeof(float)));
        bias = static_cast<float*>(arena.allocate(columns * sizeof(float)));
        if (dtype == kInt8 && keep_remainder)
            remainder = static_cast<int8_t*>(arena.allocate(size_t(n) * k));
    }

    // Pack `count` rows `w` (count, k) of the weight (columns of the product) from `first` on, with
    // their bias `b` (count,), which may be null.
    void pack_rows(int first, int count, const float* w, const float* b, int n_threads) {
        parallel_region(n_threads, 1, [&](Worker& worker, int) {
            worker.parallel_for(
                count, [&](int i) { pack_row(first + i, w + size_t(i) * k, b ? b[i] : 0); }, 16);
        });
    }

    // The product of `x` (k,) with the remainder of row `column` of the weight: what the product
    // with the row lacks. k is a multiple of 16.
    float remainder_product(int column, const float* x) const {
        const int8_t* row = remainder + size_t(column) * k;
        FloatVec total = {};
        for (int i = 0; i < k; i += kLanes) total += load(x + i) * load_int8(row + i);
        return reduce_sum(total) * scale[column] / 256;
    }

    // Read row `column` of the weight, (k,), as it is after packing.
    void unpack_row(int column, float* out) const {
        const char* at = column_data(column);
        for (int group = 0; group < groups; group++, at += kPanelStep)
            for (int i = 0; i < group_size(dtype) && group * group_size(dtype) + i < k; i++) {
                float& x = out[group * group_size(dtype) + i];
                if (dtype == kFloat32) std::memcpy(&x, at, 4);
                if (dtype == kBfloat16) x = from_bf16(reinterpret_cast<const bf16*>(at)[i]);
                if (dtype != kInt8) continue;
                x = float(int(uint8_t(at[i])) - 128);
                if (remainder) x += remainder[size_t(column) * k + 4 * group + i] / 256.0f;
                x *= scale[column];
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
        auto scaled = [&](int row, int column, FloatVec whole) {
            const FloatVec both_scales = load(scale + first + column) * a.scale[row];
            out(row, first + column, whole * both_scales + load(bias + first + column));
        };
        auto dequantize = [&](int row, int column, const float* sums) {
            scaled(row, column, whole_sums(sums, a.sum[row]));
        };
        alignas(64) float high[kPanelWidth];  // of each column, until the sums of the low digit come
        auto dequantize_two = [&](int digit_row, int column, const float* sums) {
            const FloatVec whole = whole_sums(sums, a.sum[digit_row]);
            if (digit_row % 2 == 0) return store(high + column, whole * 128.0f);
            scaled(digit_row / 2, column, load(high + column) + whole);
        };
        if (dtype == kInt8 && a.n_digits == 2)
            multiply_panel<kInt8>(a.groups, a.stride, 2 * rows, b, groups, dequantize_two);
        else if (dtype == kInt8)
            multiply_panel<kInt8>(a.groups, a.stride, rows, b, groups, dequantize);
        else if (dtype == kBfloat16)
            multiply_panel<kBfloat16>(a.groups, a.stride, rows, b, groups, add_bias);
        else
            multiply_panel<kFloat32>(a.groups, a.stride, rows, b, groups, add_bias);
    }

  private:
    // Sums of products with w + 128 as those with w: exact, and rounded to float32 once.
    static FloatVec whole_sums(const float* sums, int32_t row_sum) {
        const IntVec whole = *reinterpret_cast<const IntVec*>(sums) - 128 * row_sum;
        return __builtin_convertvector(whole, FloatVec);
    }
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
        for (int j = 0; remainder && j < k; j++) {
            const float x = row[j] * inverse, left = (x - std::nearbyint(x)) * 256;
            remainder[size_t(column) * k + j] = int8_t(std::min(127.0f, std::nearbyint(left)));
        }
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
