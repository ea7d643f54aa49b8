#include "rometrace/trace/embedding_moments.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cov.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "random_model.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/safetensors.hpp"
#include "rometrace/text/digest.hpp"
#include "text/tokenizer_goldens.hpp"

namespace rometrace::embedding_moments_test {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::TemporaryFolder;
using Ids = std::vector<std::int32_t>;

std::shared_ptr<const Decoder> random_gpt2(const testing::RandomModel& shape, unsigned seed = 1) {
  const TemporaryFolder folder;
  std::mt19937 engine(seed);
  write_random_model(folder, shape, engine);
  return Decoder::load(folder.path());
}

Ids random_text(std::size_t length, std::int64_t vocab) {
  std::mt19937 engine(3);
  Ids ids;
  // Squared, so that some tokens come up much more often than others.
  for (std::size_t i = 0; i < length; ++i) {
    const double u = std::uniform_real_distribution(0.0, 1.0)(engine);
    ids.push_back(static_cast<std::int32_t>(u * u * static_cast<double>(vocab)));
  }
  return ids;
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST_CASE("mean and covariance are those of a loop over every token of the text") {
  const auto model = random_gpt2({});
  const Ids text = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 10, 0};
  const auto moments = embedding_moments(*model, text);
  const auto rows = model->embed(text).to(at::kDouble).contiguous();
  const auto value = rows.accessor<double, 2>();
  const auto n = static_cast<int>(text.size());
  REQUIRE(moments.mean.sizes() == at::IntArrayRef{8});
  REQUIRE(moments.root.sizes() == at::IntArrayRef{8, 8});
  CHECK(moments.tokens == n);
  const auto covariance = at::matmul(moments.root, moments.root);
  std::vector<double> mean(8);
  for (int i = 0; i < 8; ++i) {
    for (int t = 0; t < n; ++t) mean[static_cast<std::size_t>(i)] += value[t][i] / n;
    CHECK(moments.mean[i].item<double>() == doctest::Approx(mean[static_cast<std::size_t>(i)]).epsilon(1e-12));
  }
  for (int i = 0; i < 8; ++i) {
    for (int j = 0; j < 8; ++j) {
      double expected = 0;
      for (int t = 0; t < n; ++t) {
        expected +=
            (value[t][i] - mean[static_cast<std::size_t>(i)]) * (value[t][j] - mean[static_cast<std::size_t>(j)]);
      }
      CAPTURE(i);
      CAPTURE(j);
      CHECK(covariance[i][j].item<double>() == doctest::Approx(expected / (n - 1)).epsilon(1e-12).scale(1));
    }
  }
}

TEST_CASE("a text of many distinct tokens, taken in blocks, has the moments of all its rows") {
  testing::RandomModel shape;
  shape.vocab = 5000;
  const auto model = random_gpt2(shape);
  const auto text = random_text(20'000, shape.vocab);
  const auto rows = model->embed(text).to(at::kDouble);
  const auto moments = embedding_moments(*model, text);
  CHECK(largest_difference(moments.mean, rows.mean(0)) < 1e-13);
  CHECK(largest_difference(at::matmul(moments.root, moments.root), at::cov(rows.t())) < 1e-12);
  const auto mean = mean_embedding(*model, text);
  CHECK(at::equal(mean.mean, moments.mean));
  CHECK(mean.tokens == 20'000);
  CHECK(!mean.root.defined());
}

TEST_CASE("the root is symmetric and has no negative eigenvalue, of a singular covariance too") {
  const auto model = random_gpt2({});
  for (const Ids& text : {Ids{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, Ids{1, 2, 2}, Ids{4, 4, 4}}) {
    const auto moments = embedding_moments(*model, text);
    CHECK(at::equal(moments.root, moments.root.t()));
    CHECK(at::linalg_eigvalsh(moments.root).min().item<double>() > -1e-12);
    const auto covariance = at::cov(model->embed(text).to(at::kDouble).t());
    CHECK(largest_difference(at::matmul(moments.root, moments.root), covariance) < 1e-12);
  }
  CHECK(embedding_moments(*model, Ids{4, 4, 4}).root.abs().max().item<double>() < 1e-7);
}

TEST_CASE("a text without enough tokens, or with one that the model does not have, is refused") {
  const auto model = random_gpt2({});
  const auto complaint = [&](const Ids& text) {
    return testing::message_of<Error>([&] { embedding_moments(*model, text); });
  };
  CHECK(complaint({}) == Contains("the text has 0 tokens; expected at least 2"));
  CHECK(complaint({3}) == Contains("the text has 1 token; expected at least 2"));
  CHECK(complaint({3, 11}) == Contains("token id 11 is outside the model's vocabulary of 11"));
  CHECK(testing::message_of<Error>([&] { mean_embedding(*model, Ids{}); }) == Contains("expected at least 1"));
  CHECK(at::equal(mean_embedding(*model, Ids{3}).mean, model->embed(Ids{3})[0].to(at::kDouble)));
  const TemporaryFolder cache;
  CHECK(testing::message_of<Error>([&] { cached_embedding_moments(*model, Ids{3}, cache.path()); }) ==
        Contains("expected at least 2"));
  CHECK(fs::is_empty(cache.path()));
}

// ---- The cache ----

const Ids kText = {1, 2, 3, 5, 8, 2, 10, 4};

bool same(const EmbeddingMoments& a, const EmbeddingMoments& b) {
  return at::equal(a.mean, b.mean) && at::equal(a.root, b.root) && a.tokens == b.tokens;
}

/// The only file of a folder.
fs::path file_of(const fs::path& folder) {
  const std::vector<fs::directory_entry> entries(fs::directory_iterator(folder), {});
  REQUIRE(entries.size() == 1);
  return entries.front().path();
}

TEST_CASE("moments are kept in a file, in a folder that is made, and read back to the last bit") {
  const auto model = random_gpt2({});
  const TemporaryFolder folder;
  const auto cache = folder.path() / "a/b";
  const auto computed = embedding_moments(*model, kText);
  CHECK(same(cached_embedding_moments(*model, kText, cache), computed));
  const auto file = file_of(cache);
  CHECK(file.filename().string() == Contains("moments-"));
  const auto written = fs::last_write_time(file);
  CHECK(same(cached_embedding_moments(*model, kText, cache), computed));
  CHECK(fs::last_write_time(file_of(cache)) == written);
}

TEST_CASE("a whole file of the right name is believed") {
  const auto model = random_gpt2({});
  const TemporaryFolder cache;
  cached_embedding_moments(*model, kText, cache.path());
  const auto file = file_of(cache.path());
  const auto key = file.stem().string().substr(std::string("moments-").size());
  auto bytes = testing::content_of(file);
  const std::size_t data = bytes.size() - 64 - 72 * sizeof(double);
  const double mark = 42;
  std::memcpy(bytes.data() + data, &mark, sizeof mark);  // mean[0]
  Sha256 hash;
  hash.update(std::as_bytes(std::span(key)));
  hash.update(std::as_bytes(std::span(bytes).subspan(data, 72 * sizeof(double))));
  bytes.replace(bytes.size() - 64, 64, hash.hex_digest());
  cache.write(file.filename(), bytes);
  CHECK(cached_embedding_moments(*model, kText, cache.path()).mean[0].item<double>() == 42);
}

TEST_CASE("a damaged file is made anew, and no one hears of it") {
  const auto model = random_gpt2({});
  const auto computed = embedding_moments(*model, kText);
  const TemporaryFolder cache;
  cached_embedding_moments(*model, kText, cache.path());
  const auto file = file_of(cache.path());
  const auto good = testing::content_of(file);
  const auto check = [&](const std::string& damaged) {
    cache.write(file.filename(), damaged);
    CHECK(same(cached_embedding_moments(*model, kText, cache.path()), computed));
    CHECK(testing::content_of(file_of(cache.path())) == good);
  };
  for (const std::size_t size : {std::size_t{0}, std::size_t{5}, good.size() / 2, good.size() - 1}) {
    CAPTURE(size);
    check(good.substr(0, size));
  }
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{20}, good.size() - 600, good.size() - 100, good.size() - 1}) {
    CAPTURE(at);
    auto flipped = good;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    check(flipped);
  }
  check("something else entirely");
  check(testing::safetensors_bytes("{}", ""));
}

TEST_CASE("each text and each model has a file of its own; the order of the tokens makes no difference") {
  const TemporaryFolder cache;
  const auto files = [&] { return std::distance(fs::directory_iterator(cache.path()), {}); };
  const auto model = random_gpt2({}), other = random_gpt2({}, 2);
  CHECK(same(cached_embedding_moments(*model, kText, cache.path()), embedding_moments(*model, kText)));
  const Ids turned(kText.rbegin(), kText.rend());
  CHECK(same(cached_embedding_moments(*model, turned, cache.path()), embedding_moments(*model, kText)));
  CHECK(files() == 1);
  const auto first = file_of(cache.path());
  auto longer = kText;
  longer.push_back(1);
  CHECK(same(cached_embedding_moments(*model, longer, cache.path()), embedding_moments(*model, longer)));
  CHECK(files() == 2);
  CHECK(same(cached_embedding_moments(*other, kText, cache.path()), embedding_moments(*other, kText)));
  CHECK(files() == 3);
  // The file of one text under the name of another is not believed.
  for (const auto& entry : fs::directory_iterator(cache.path())) {
    if (entry.path() != first) fs::copy_file(first, entry.path(), fs::copy_options::overwrite_existing);
  }
  CHECK(same(cached_embedding_moments(*model, longer, cache.path()), embedding_moments(*model, longer)));
  CHECK(same(cached_embedding_moments(*other, kText, cache.path()), embedding_moments(*other, kText)));
}

TEST_CASE("without a place for the cache the moments are computed") {
  const auto model = random_gpt2({});
  const auto computed = embedding_moments(*model, kText);
  CHECK(same(cached_embedding_moments(*model, kText, {}), computed));
  const TemporaryFolder folder;
  const auto occupied = folder.write("file", "not a folder");
  CHECK(same(cached_embedding_moments(*model, kText, occupied), computed));
  CHECK(same(cached_embedding_moments(*model, kText, occupied / "below"), computed));
  CHECK(testing::content_of(occupied) == "not a folder");
  // Something that is no file stands where it should be.
  const auto cache = folder.path() / "cache";
  cached_embedding_moments(*model, kText, cache);
  const auto file = file_of(cache);
  fs::remove(file);
  fs::create_directories(file / "full");
  CHECK(same(cached_embedding_moments(*model, kText, cache), computed));
  CHECK(file_of(cache) == file);  // no temporary file is left
}

/// Sets or unsets a variable for the life of the object.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* found = std::getenv(name)) before_ = found;
    set(value);
  }
  ~Environment() { set(before_ ? before_->c_str() : nullptr); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  void set(const char* value) { value == nullptr ? ::unsetenv(name_) : ::setenv(name_, value, 1); }
  const char* name_;
  std::optional<std::string> before_;
};

TEST_CASE("the cache is where the desktop's rules put it") {
  const auto with = [](const char* cache, const char* home) {
    const Environment one("XDG_CACHE_HOME", cache), other("HOME", home);
    return default_cache_dir();
  };
  CHECK(with("/var/cache/me", "/home/me") == "/var/cache/me/rometrace");
  CHECK(with(nullptr, "/home/me") == "/home/me/.cache/rometrace");
  CHECK(with("", "/home/me") == "/home/me/.cache/rometrace");
  CHECK(with("relative", "/home/me") == "/home/me/.cache/rometrace");
  CHECK(with(nullptr, nullptr).empty());
  CHECK(with(nullptr, "").empty());
}

}  // namespace
}  // namespace rometrace::embedding_moments_test
