#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

/// NumPy's legacy generator `numpy.random.RandomState(seed)`, bit for bit: MT19937, 53-bit doubles, polar Gaussian
/// with its second value kept.
class RandomState {
 public:
  explicit RandomState(std::uint32_t seed);

  double random_sample();                   ///< uniform in [0, 1)
  double uniform(double low, double high);  ///< `RandomState.uniform`
  double randn();                           ///< standard normal, `RandomState.randn`

 private:
  std::mt19937 engine_;
  bool has_gauss_ = false;
  double gauss_ = 0;
};

/// How the subject's embeddings are corrupted (`--noise`).
struct NoiseRule {
  enum class Distribution { kGaussian, kUniform };

  Distribution distribution = Distribution::kGaussian;
  /// Gaussian from a plain number: the standard deviation. Uniform: the half-width. With `of_subjects`: the factor.
  double scale = 3;
  /// Gaussian with `scale` times the standard deviation of the embeddings of a facts file's subjects (s, s<k>).
  bool of_subjects = true;

  /// Reads "s", "s3", "0.1", "u0.5", ... Throws Error for anything else, naming what is understood.
  static NoiseRule parse(std::string_view text);
};

/// The draws of one run: `samples` x `tokens` x `width` doubles in C order, from RandomState(seed) made anew, times
/// `sigma` (uniform: in [-sigma, sigma]). The reference adds these in double and rounds once to the model's dtype.
std::vector<double> draw_noise(NoiseRule::Distribution distribution, double sigma, std::uint32_t seed,
                               std::int64_t samples, std::int64_t tokens, std::int64_t width);

}  // namespace rometrace
