// Sums over pixels of softplus(a_d - W[i][z_i][d] + W[i][j][d]) for every latent i and value j of every row.
//
// Sum_d softplus(t_d) = log Prod_d (1 + e^{t_d}), and e^{t_d} = e^{a_d} e^{-W[i][z_i][d]} e^{W[i][j][d]}: one
// fused multiply-add and one multiplication per element. After every second factor the binary exponent is moved into
// an integer, so one logarithm serves all pixels. Rows whose factors might leave float32's range are summed with a
// softplus per element instead.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

// Vectors as wide as the processor's registers, and as many values at once as keep their sums in registers.
#ifdef __AVX512F__
constexpr int lanes = 16;
constexpr int largest_block = 8;
#elif defined(__AVX__)
constexpr int lanes = 8;
constexpr int largest_block = 4;
#else
constexpr int lanes = 4;
constexpr int largest_block = 4;
#endif
constexpr int unroll = 2 * lanes;
constexpr int padding = 2 * unroll;
constexpr float largest_product = 4.7e18f;  // e^43: two factors and a mantissa stay below the largest float32
constexpr float largest_weight = 20.0f;
constexpr float largest_output = 60.0f;

typedef float Floats __attribute__((vector_size(4 * lanes)));
typedef int32_t Integers __attribute__((vector_size(4 * lanes)));

inline Floats load(const float* from) {
  Floats vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

inline float softplus(float t) { return std::max(t, 0.0f) + std::log1p(std::exp(-std::fabs(t))); }

// Values j of one block at once. The pixels are cut into `parts`, so that a small block too has enough independent
// chains of operations to keep the processor busy.
template <int block, int parts>
void log_products(const float* u, const float* changes, int64_t padded, float* sums) {
  Floats product[block][parts];
  Integers exponent[block][parts];
  for (int j = 0; j < block; j++)
    for (int part = 0; part < parts; part++) {
      product[j][part] = Floats{} + 1.0f;
      exponent[j][part] = Integers{};
    }
  for (int64_t d = 0; d < padded; d += parts * unroll)
    for (int part = 0; part < parts; part++) {
      const int64_t at = d + part * unroll;
      const Floats first = load(u + at), second = load(u + at + lanes);
      for (int j = 0; j < block; j++) {
        const float* change = changes + j * padded + at;
        Floats both = product[j][part] * (1.0f + first * load(change));
        both = both * (1.0f + second * load(change + lanes));
        Integers bits;
        std::memcpy(&bits, &both, sizeof bits);
        exponent[j][part] += bits >> 23;
        bits = (bits & 0x007fffff) | 0x3f800000;
        std::memcpy(&product[j][part], &bits, sizeof bits);
      }
    }
  const int64_t bias = 127 * lanes * (padded / unroll);
  for (int j = 0; j < block; j++) {
    double mantissas = 1.0;
    int64_t total = -bias;
    for (int part = 0; part < parts; part++)
      for (int lane = 0; lane < lanes; lane++) {
        mantissas *= product[j][part][lane];
        total += exponent[j][part][lane];
      }
    sums[j] = static_cast<float>(std::log(mantissas) + total * 0.6931471805599453);
  }
}

// Largest of a multiple of `padding` non-negative numbers.
float largest_of(const float* from, int64_t size) {
  Floats most[padding / lanes] = {};
  for (int64_t d = 0; d < size; d += padding)
    for (int part = 0; part < padding / lanes; part++) {
      const Floats next = load(from + d + part * lanes);
      most[part] = next > most[part] ? next : most[part];
    }
  float largest = 0.0f;
  for (const Floats& part : most)
    for (int lane = 0; lane < lanes; lane++) largest = std::max(largest, part[lane]);
  return largest;
}

typedef void (*Kernel)(const float*, const float*, int64_t, float*);
const Kernel kernels[] = {nullptr,
                          log_products<1, 2>, log_products<2, 2>, log_products<3, 1>, log_products<4, 1>,
                          log_products<5, 1>, log_products<6, 1>, log_products<7, 1>, log_products<8, 1>};
static_assert(largest_block < sizeof kernels / sizeof kernels[0], "a kernel for every size of block");

struct Shape {
  int64_t rows, n, k, pixels, padded;
};

// One seed and one latent: all rows, all values.
void one_latent(const Shape& shape, int64_t latent, const float* outputs, const float* exponentials, const float* largest,
                const float* weight, const float* weight_exponentials, float weight_size, const int64_t* values,
                float* sums) {
  const int64_t k = shape.k, pixels = shape.pixels, padded = shape.padded;
  std::vector<float> changes(k * padded, 0.0f), inverse(k * padded, 0.0f), u(padded, 0.0f);
  for (int64_t j = 0; j < k; j++)
    for (int64_t d = 0; d < pixels; d++) {
      changes[j * padded + d] = weight_exponentials[j * pixels + d];
      inverse[j * padded + d] = 1.0f / weight_exponentials[j * pixels + d];
    }
  const float largest_change = largest_of(changes.data(), k * padded);
  for (int64_t row = 0; row < shape.rows; row++) {
    const int64_t value = values[row * shape.n + latent];
    float* into = sums + (row * shape.n + latent) * k;
    if (!std::isfinite(weight_size) || !std::isfinite(largest[row])) {
      std::fill(into, into + k, std::numeric_limits<float>::quiet_NaN());
      continue;
    }
    for (int64_t d = 0; d < pixels; d++) u[d] = exponentials[row * pixels + d] * inverse[value * padded + d];
    const float largest_u = largest_of(u.data(), padded);
    if (weight_size <= largest_weight && largest[row] <= largest_output && largest_u * largest_change <= largest_product) {
      const int64_t blocks = (k + largest_block - 1) / largest_block;
      for (int64_t block = 0, j = 0; block < blocks; block++) {
        const int64_t size = (k - j + blocks - block - 1) / (blocks - block);
        kernels[size](u.data(), changes.data() + j * padded, padded, into + j);
        j += size;
      }
    } else {
      for (int64_t j = 0; j < k; j++) {
        double sum = 0.0;
        for (int64_t d = 0; d < pixels; d++)
          sum += softplus(outputs[row * pixels + d] - weight[value * pixels + d] + weight[j * pixels + d]);
        into[j] = static_cast<float>(sum);
      }
    }
  }
}

}  // namespace

// outputs (seeds, rows, pixels), weight (seeds, n, k, pixels), the exponentials of both, the largest output of each row
// (seeds, rows), the largest absolute weight of each latent (seeds, n), values (seeds, rows, n)
// -> sums (seeds, rows, n, k)
extern "C" void softplus_sums(const float* outputs, const float* weight, const float* exponentials,
                              const float* weight_exponentials, const float* largest, const float* weight_sizes,
                              const int64_t* values, float* sums, int64_t seeds, int64_t rows, int64_t n, int64_t k,
                              int64_t pixels, int threads) {
  const Shape shape{rows, n, k, pixels, (pixels + padding - 1) / padding * padding};
#pragma omp parallel for collapse(2) num_threads(threads)
  for (int64_t seed = 0; seed < seeds; seed++)
    for (int64_t latent = 0; latent < n; latent++) {
      const int64_t weights = (seed * n + latent) * k * pixels;
      one_latent(shape, latent, outputs + seed * rows * pixels, exponentials + seed * rows * pixels, largest + seed * rows,
                 weight + weights, weight_exponentials + weights, weight_sizes[seed * n + latent],
                 values + seed * rows * n, sums + seed * rows * n * k);
    }
}
