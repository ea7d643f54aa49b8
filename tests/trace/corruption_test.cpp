#include "trace/corruption.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>

#include <memory>
#include <random>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "random_model.hpp"
#include "rometrace/error.hpp"
#include "rometrace/trace/embedding_moments.hpp"

namespace rometrace::corruption_test {
namespace {

using Distribution = NoiseRule::Distribution;
using Ids = std::vector<std::int32_t>;

const Ids kPrompt = {3, 1, 4, 1, 5};
const Ids kAnswer = {9, 2};  // read behind the prompt
constexpr TokenRange kSubject = {1, 3};

std::shared_ptr<const Decoder> random_gpt2(at::ScalarType dtype = at::kFloat) {
  const testing::TemporaryFolder folder;
  std::mt19937 engine(5);
  write_random_model(folder, {}, engine);
  return Decoder::load(folder.path(), dtype);
}

/// Embeddings of the prompt and its answer in each of `draws` rows, [draws, 7, 8].
at::Tensor clean_embeddings(const Decoder& model, std::int64_t draws) {
  auto ids = kPrompt;
  ids.insert(ids.end(), kAnswer.begin(), kAnswer.end());
  return model.embed(ids).unsqueeze(0).repeat({draws, 1, 1});
}

at::Tensor corrupted(const Decoder& model, const CorruptionOptions& options, std::int64_t first_draw,
                     std::int64_t draws, const Ids& counter_ids = {}) {
  auto embeddings = clean_embeddings(model, draws);
  Corruption(model, options, kSubject, counter_ids, first_draw, draws).apply(embeddings);
  return embeddings;
}

CorruptionOptions noise(Distribution distribution, const std::shared_ptr<const EmbeddingMoments>& moments) {
  CorruptionOptions options;
  options.distribution = distribution;
  options.sigma = 0.3;
  options.degrees_of_freedom = 4;
  options.seed = 11;
  options.moments = moments;
  return options;
}

std::shared_ptr<const EmbeddingMoments> moments_of(const Decoder& model) {
  return std::make_shared<EmbeddingMoments>(embedding_moments(model, Ids{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
}

/// What stands before and behind positions [1, 3) is as it was.
void check_rest_is_clean(const at::Tensor& embeddings, const at::Tensor& clean) {
  CHECK(at::equal(embeddings.slice(1, 0, 1), clean.slice(1, 0, 1)));
  CHECK(at::equal(embeddings.slice(1, 3), clean.slice(1, 3)));
}

TEST_CASE("noise of every distribution is added to the subject's embeddings, or replaces them, rounded once") {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto model = random_gpt2(dtype);
    const auto moments = moments_of(*model);
    for (const auto distribution :
         {Distribution::kGaussian, Distribution::kUniform, Distribution::kMultivariate, Distribution::kStudent}) {
      CAPTURE(static_cast<int>(distribution));
      auto options = noise(distribution, moments);
      auto drawn = draw_noise({distribution, 0.3, 4, moments.get(), 11, 2, 3, 2, 8});
      const auto values = at::from_blob(drawn.data(), {3, 2, 8}, at::kDouble);
      const auto clean = clean_embeddings(*model, 3);
      const auto added = corrupted(*model, options, 2, 3);
      check_rest_is_clean(added, clean);
      CHECK(at::equal(added.slice(1, 1, 3), (clean.slice(1, 1, 3).to(at::kDouble) + values).to(dtype)));
      options.replace = true;
      const auto replaced = corrupted(*model, options, 2, 3);
      check_rest_is_clean(replaced, clean);
      CHECK(at::equal(replaced.slice(1, 1, 3), values.to(dtype)));
    }
  }
}

TEST_CASE("draws in parts are the draws at once") {
  const auto model = random_gpt2();
  const auto moments = moments_of(*model);
  for (const auto distribution :
       {Distribution::kGaussian, Distribution::kUniform, Distribution::kMultivariate, Distribution::kStudent}) {
    CAPTURE(static_cast<int>(distribution));
    const auto options = noise(distribution, moments);
    const auto whole = corrupted(*model, options, 0, 5);
    CHECK(at::equal(corrupted(*model, options, 0, 3), whole.slice(0, 0, 3)));
    CHECK(at::equal(corrupted(*model, options, 3, 2), whole.slice(0, 3)));
    CHECK(!at::equal(whole[0], whole[1]));
  }
}

TEST_CASE("the subject's embeddings become zero, or a text's mean, in every row") {
  const auto model = random_gpt2();
  CorruptionOptions options;
  options.sigma = 1;  // nothing that concerns them
  options.method = CorruptionMethod::kZero;
  for (const std::int64_t draws : {1, 3}) {
    const auto clean = clean_embeddings(*model, draws);
    auto embeddings = corrupted(*model, options, 0, draws);
    check_rest_is_clean(embeddings, clean);
    CHECK(embeddings.slice(1, 1, 3).abs().max().item<double>() == 0);
  }
  options.method = CorruptionMethod::kMean;
  options.moments = std::make_shared<EmbeddingMoments>(mean_embedding(*model, Ids{2, 7, 7}));
  for (const std::int64_t draws : {1, 3}) {
    const auto clean = clean_embeddings(*model, draws);
    const auto embeddings = corrupted(*model, options, 0, draws);
    check_rest_is_clean(embeddings, clean);
    for (std::int64_t n = 0; n < draws; ++n) {
      for (const std::int64_t t : {1, 2}) CHECK(at::equal(embeddings[n][t], options.moments->mean.to(at::kFloat)));
    }
  }
}

TEST_CASE("the prompt's embeddings become the counter prompt's, the answer's stay") {
  const auto model = random_gpt2();
  const Ids counter = {3, 8, 4, 10, 6};
  CorruptionOptions options;
  options.method = CorruptionMethod::kTokens;
  for (const std::int64_t draws : {1, 2}) {
    const auto embeddings = corrupted(*model, options, 0, draws, counter);
    const auto expected = model->embed(Ids{3, 8, 4, 10, 6, 9, 2});
    for (std::int64_t n = 0; n < draws; ++n) CHECK(at::equal(embeddings[n], expected));
  }
  CHECK(testing::message_of<Error>([&] {
          corrupted(*model, options, 0, 1, {3, 8, 4, 11, 6});
        }) == testing::Contains("token id 11 is outside the model's vocabulary"));
}

TEST_CASE("only noise is random") {
  for (const auto method :
       {CorruptionMethod::kNoise, CorruptionMethod::kZero, CorruptionMethod::kMean, CorruptionMethod::kTokens}) {
    CorruptionOptions options;
    options.method = method;
    CHECK(is_random(options) == (to_string(method) == "noise"));
  }
  CHECK(to_string(CorruptionMethod::kZero) == "zero");
  CHECK(to_string(CorruptionMethod::kMean) == "mean");
  CHECK(to_string(CorruptionMethod::kTokens) == "tokens");
}

TEST_CASE("the first corrupted position is the subject's, or the first that differs from the counter prompt's") {
  CHECK(first_corrupted(kSubject, kPrompt, {}) == 1);
  CHECK(first_corrupted(kSubject, kPrompt, Ids{3, 1, 8, 1, 5}) == 2);
  CHECK(first_corrupted(kSubject, kPrompt, Ids{0, 1, 4, 1, 6}) == 0);
  CHECK(first_corrupted(kSubject, kPrompt, Ids{3, 1, 4, 1, 6}) == 4);
  CHECK(first_corrupted(kSubject, kPrompt, kPrompt) == 5);
}

}  // namespace
}  // namespace rometrace::corruption_test
