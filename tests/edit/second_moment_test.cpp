#include "rometrace/edit/second_moment.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <filesystem>
#include <random>
#include <stop_token>
#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "random_model.hpp"
#include "rometrace/error.hpp"

namespace rometrace::second_moment_test {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

constexpr std::int64_t kLayers = 4, kInner = 600, kPositions = 16, kVocabulary = 11;  // two panels of a sum

/// Texts of random tokens, of lengths from 1 to all that the model takes.
MomentText random_text(std::int64_t texts) {
  std::mt19937 draw(7);
  MomentText text;
  text.sha256 = "of the text";
  text.texts = texts;
  text.cut = kPositions;
  for (std::int64_t i = 0; i < texts; ++i) {
    for (auto left = 1 + draw() % kPositions; left > 0; --left) {
      text.token_ids.push_back(static_cast<std::int32_t>(draw() % kVocabulary));
    }
    text.ends.push_back(text.tokens());
  }
  return text;
}

std::shared_ptr<const Decoder> random_decoder(const TemporaryFolder& folder, const LoadOptions& options) {
  std::mt19937 engine(3);
  testing::write_random_model(
      folder,
      {.layers = kLayers, .width = 8, .heads = 2, .inner = kInner, .vocab = kVocabulary, .positions = kPositions},
      engine);
  return Decoder::load(folder.path(), options);
}

LoadOptions double_options() {
  LoadOptions options;
  options.dtype = at::kDouble;
  return options;
}

LoadOptions streaming() {
  LoadOptions options;
  options.memory = 1;
  return options;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().native());
  return names;
}

bool same(const std::vector<SecondMoment>& found, const std::vector<SecondMoment>& expected) {
  if (found.size() != expected.size()) return false;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (found[i].layer != expected[i].layer || !at::equal(found[i].mean, expected[i].mean)) return false;
  }
  return true;
}

TEST_CASE("a second moment is the mean of k k^T over the tokens of texts that are run one by one") {
  const TemporaryFolder folder;
  const auto model = random_decoder(folder, double_options());
  const auto text = random_text(300);
  const std::vector<std::int64_t> layers = {2, 0};
  const auto moments = second_moments(*model, text, layers);

  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> sums(kLayers);
  for (auto& sum : sums) sum = at::zeros({kInner, kInner}, at::kDouble);
  std::int64_t begin = 0;
  for (const auto end : text.ends) {
    const auto ids =
        std::span(text.token_ids).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    model->forward(ids, 1, [&](Site site, std::int64_t layer, at::Tensor& value) {
      if (site == Site::kMlpHidden) sums[static_cast<std::size_t>(layer)] += at::matmul(value[0].t(), value[0]);
    });
    begin = end;
  }
  REQUIRE(moments.size() == 2);
  for (const auto& moment : moments) {
    const auto expected = sums[static_cast<std::size_t>(moment.layer)] / text.tokens();
    CHECK(moment.tokens == text.tokens());
    CHECK(at::equal(moment.mean, moment.mean.t()));
    CHECK((moment.mean - expected).norm().item<double>() < 1e-13 * expected.norm().item<double>());
  }
  CHECK(moments[0].layer == 2);
  CHECK(moments[1].layer == 0);
}

TEST_CASE("streamed layers, and texts that go through them together, give the same bits") {
  const TemporaryFolder folder;
  const auto text = random_text(600);
  const std::vector<std::int64_t> layers = {1, 3};
  const auto expected = second_moments(*random_decoder(folder, {}), text, layers);
  const auto streamed = random_decoder(folder, streaming());
  REQUIRE(streamed->streamed());
  for (const std::int64_t memory : {1, 40'000'000, 1 << 30}) {
    MomentControl control;
    control.memory = memory;
    CHECK(same(second_moments(*streamed, text, layers, control), expected));
  }
}

TEST_CASE("a run that is stopped goes on behind what is done, to the same bits, wherever it was stopped") {
  const TemporaryFolder folder, cache_folder;
  const auto model = random_decoder(folder, {});
  const auto text = random_text(900);  // some 8 blocks
  const std::vector<std::int64_t> layers = {1, 2};
  const auto expected = second_moments(*model, text, layers);
  for (const int part : {2, 30, 60, 85}) {
    CAPTURE(part);
    const MomentCache cache{cache_folder.path() / std::to_string(part), "of the weights"};
    std::stop_source source;
    MomentControl control;
    control.stop = source.get_token();
    control.progress = [&](std::int64_t done, std::int64_t total) {
      if (100 * done >= part * total) source.request_stop();
    };
    CHECK_THROWS_AS(cached_second_moments(*model, text, layers, cache, control), Interrupted);
    CHECK(fs::exists(cache.folder) == (part > 20));  // before the first block there is nothing to keep
    if (fs::exists(cache.folder)) CHECK(names_in(cache.folder).size() == 1);
    std::int64_t skipped = 0;
    MomentControl again;
    again.resumed = [&](std::int64_t texts) { skipped = texts; };
    CHECK(same(cached_second_moments(*model, text, layers, cache, again), expected));
    CHECK((skipped > 0) == (part > 20));
    CHECK(skipped < text.texts);
    CHECK(names_in(cache.folder).size() == layers.size());
    CHECK(same(cached_second_moments(*model, text, layers, cache), expected));  // from the files
  }
}

TEST_CASE("sums of another text, model or layers are not gone on with, nor those of a damaged file") {
  const TemporaryFolder folder, cache_folder;
  const auto model = random_decoder(folder, {});
  const auto text = random_text(900);
  const std::vector<std::int64_t> layers = {1, 2};
  const MomentCache cache{cache_folder.path(), "of the weights"};
  std::stop_source source;
  MomentControl control;
  control.stop = source.get_token();
  control.progress = [&](std::int64_t done, std::int64_t total) {
    if (2 * done >= total) source.request_stop();
  };
  CHECK_THROWS_AS(cached_second_moments(*model, text, layers, cache, control), Interrupted);
  const auto sums = names_in(cache.folder);
  REQUIRE(sums.size() == 1);
  bool resumed = false;
  MomentControl again;
  again.resumed = [&](std::int64_t) { resumed = true; };
  auto other = text;
  other.token_ids[5] = (other.token_ids[5] + 1) % kVocabulary;
  cached_second_moments(*model, other, layers, cache, again);
  cached_second_moments(*model, text, layers, {cache.folder, "of others"}, again);
  cached_second_moments(*model, text, std::vector<std::int64_t>{0, 3}, cache, again);
  CHECK(!resumed);
  const auto expected = second_moments(*model, text, layers);
  const auto path = cache.folder / sums.front();
  fs::resize_file(path, fs::file_size(path) - 1);
  CHECK(same(
      cached_second_moments(*model, text, std::vector<std::int64_t>{1, 2}, {cache.folder, "of the weights"}, again),
      expected));
  CHECK(!resumed);
}

TEST_CASE("a layer that the model does not have is refused") {
  const TemporaryFolder folder;
  const auto model = random_decoder(folder, {});
  CHECK_THROWS_AS(second_moments(*model, random_text(2), std::vector<std::int64_t>{kLayers}), Error);
  CHECK_THROWS_AS(second_moments(*model, random_text(2), std::vector<std::int64_t>{-1}), Error);
}

}  // namespace
}  // namespace rometrace::second_moment_test
