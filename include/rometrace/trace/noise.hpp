#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

struct EmbeddingMoments;

/// NumPy's legacy generator `numpy.random.RandomState(seed)`, bit for bit: MT19937, 53-bit doubles, polar Gaussian
/// with its second value kept, gamma by Marsaglia and Tsang with that Gaussian.
class RandomState {
 public:
  explicit RandomState(std::uint32_t seed);

  double random_sample();                   ///< uniform in [0, 1)
  double uniform(double low, double high);  ///< `RandomState.uniform`
  double randn();                           ///< standard normal, `RandomState.randn`
  double chisquare(double df);              ///< `RandomState.chisquare`, df > 0

 private:
  double standard_exponential();
  double standard_gamma(double shape);

  std::mt19937 engine_;
  bool has_gauss_ = false;
  double gauss_ = 0;
};

/// How the subject's embeddings are corrupted (`--noise`).
struct NoiseRule {
  enum class Distribution {
    kGaussian,
    kUniform,
    kMultivariate,  ///< Gaussian with mean and covariance of the token embeddings of a text
    kStudent,       ///< that, scaled as Student's t
  };

  Distribution distribution = Distribution::kGaussian;
  /// Gaussian from a plain number: the standard deviation. Uniform: the half-width. With `of_subjects`: the factor.
  /// Multivariate, Student: 1, and not used.
  double scale = 3;
  /// Gaussian with `scale` times the standard deviation of the embeddings of a facts file's subjects (s, s<k>).
  bool of_subjects = true;
  double degrees_of_freedom = 0;  ///< Student: more than 2, finite

  /// Reads "s", "s3", "0.1", "u0.5", "m", "t5", ... Throws Error for anything else, naming what is understood.
  static NoiseRule parse(std::string_view text);
};

/// The rule as results have it: "s3" of "s3.0", "s1" of "s". parse() reads it back.
std::string to_string(const NoiseRule& rule);

/// `text` in that spelling if it is a rule, else as it is: what files say that were written before there was one.
std::string in_one_spelling(const std::string& text);

/// Which noise to draw. The generators are made anew for each call: the draws are numbers `first_draw` ..
/// `first_draw + draws - 1` of one stream, so that a longer run goes on where a shorter one ended.
struct NoiseDraws {
  NoiseRule::Distribution distribution = NoiseRule::Distribution::kGaussian;
  double sigma = 0;                           ///< Gaussian: standard deviation; uniform: half-width; else not used
  double degrees_of_freedom = 0;              ///< Student only, more than 2
  const EmbeddingMoments* moments = nullptr;  ///< multivariate and Student only, with a root; of `width`
  std::uint32_t seed = 1;
  std::int64_t first_draw = 0;
  std::int64_t draws = 1;
  std::int64_t tokens = 1;
  std::int64_t width = 1;  ///< D
};

/// The noise, `draws` x `tokens` x `width` doubles in C order. g being RandomState(seed).randn of that shape:
/// Gaussian, sigma * g; uniform, sigma * RandomState(seed).uniform(-1, 1); multivariate, g * root + mean; Student,
/// sqrt((df - 2) / u) * (g * root + mean) with u from RandomState(2).chisquare(df), one for each token. The reference
/// adds these in double and rounds once to the model's dtype.
std::vector<double> draw_noise(const NoiseDraws& asked);

}  // namespace rometrace
