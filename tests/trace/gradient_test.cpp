#include "rometrace/trace/gradient.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "closeness.hpp"
#include "files.hpp"
#include "golden_models.hpp"
#include "random_model.hpp"
#include "rometrace/error.hpp"
#include "rometrace/trace/embedding_moments.hpp"
#include "rometrace/trace/patch.hpp"
#include "rometrace/trace/plain.hpp"
#include "skip.hpp"
#include "trace/corruption.hpp"

namespace rometrace::gradient_test {
namespace {

using testing::Closeness;
using testing::Contains;
using testing::is_one_line;
using testing::message_of;
using testing::RandomModel;
using testing::TemporaryFolder;

Trace gradient(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
               const RunControl& control = {}) {
  return trace_gradient(model, prompt, options, run_clean(model, prompt, options), control);
}

// A random model of several layers and heads, a prompt whose subject is in its middle, and all kinds.
struct Example {
  TemporaryFolder folder;
  std::shared_ptr<const Decoder> model;
  TracePrompt prompt;
  TraceOptions options;

  explicit Example(at::ScalarType dtype = at::kDouble, Products products = Products::kUnpacked) {
    std::mt19937 engine(20);
    RandomModel shape;
    shape.layers = 4;
    shape.width = 12;
    shape.heads = 3;
    testing::write_random_model(folder, shape, engine);
    model = load(dtype, products);
    prompt.token_ids = {3, 1, 4, 5, 9};
    prompt.subject_range = {1, 3};
    prompt.target = {2};
    options.kinds = {Kind::kState, Kind::kMlp, Kind::kAttn, Kind::kHead};
    options.window = 3;
    options.head_window = 2;
    options.samples = 3;
    options.corruption.sigma = 0.5;
  }

  std::shared_ptr<const Decoder> load(at::ScalarType dtype, Products products) const {
    // Any CPU multiplies in bfloat16, if slowly, once it is not refused.
    return Decoder::load(
        folder.path(),
        LoadOptions{
            .dtype = dtype, .products = products, .memory = std::nullopt, .processor = {.multiplies_bfloat16 = true}});
  }
};

using Outputs = std::map<std::pair<Site, std::int64_t>, at::Tensor>;

// One run of some draws as its taps tell it, [draws] and the outputs; `change` comes after the corruption.
std::vector<double> run_model(const Example& example, const CleanRun& clean, bool corrupt, const Tap& change) {
  const at::NoGradGuard no_grad;
  const auto& [folder, model, prompt, options] = example;
  const Corruption corruption(*model, options.corruption, prompt.subject_range, prompt.counter_ids, 0, options.samples);
  const auto hidden = model->forward(clean.token_ids, options.samples, [&](Site site, std::int64_t layer, auto& value) {
    if (site == Site::kEmbedding && corrupt) corruption.apply(value);
    change(site, layer, value);
  });
  const auto p = at::softmax(model->logits(hidden), -1);
  std::vector<double> result;
  for (std::int64_t draw = 0; draw < options.samples; ++draw) {
    double product = 1;
    for (std::size_t k = 0; k < prompt.target.size(); ++k) {
      product *= p[draw][clean.trace.tokens - 1 + static_cast<std::int64_t>(k)][prompt.target[k]].item<double>();
    }
    result.push_back(product);
  }
  return result;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// Compares every cell with runs of the model in which the site's output is moved a little towards the other run's.
void compare_with_differences(const Example& example) {
  const auto& [folder, model, prompt, options] = example;
  const auto clean = run_clean(*model, prompt, options);
  const auto trace = trace_gradient(*model, prompt, options, clean);
  const bool noising = options.direction == Direction::kNoising;

  Outputs base, other;
  const auto record = [](Outputs& outputs) {
    return [&outputs](Site site, std::int64_t layer, at::Tensor& value) { outputs[{site, layer}] = value.clone(); };
  };
  const auto base_scores = run_model(example, clean, !noising, record(base));
  const auto other_scores = run_model(example, clean, noising, record(other));
  CHECK(trace.high_score == doctest::Approx(mean_of(noising ? base_scores : other_scores)).epsilon(1e-12));
  CHECK(trace.low_score == doctest::Approx(mean_of(noising ? other_scores : base_scores)).epsilon(1e-12));

  const auto moved = [&](const Patch& patch, double step) {
    const auto& change = patch.changes.front();
    return run_model(example, clean, !noising, [&](Site site, std::int64_t layer, at::Tensor& value) {
      if (site != change.site || !change.layers.contains(layer)) return;
      const auto width = change.head ? value.size(2) / model->config().heads : value.size(2);
      const auto part = [&](const at::Tensor& of) {
        return of.select(1, patch.position).slice(1, change.head.value_or(0) * width).slice(1, 0, width);
      };
      part(value).add_(part(other.at({site, layer})) - part(base.at({site, layer})), step);
    });
  };
  // The error of a central difference is of the order of the step's square; that of rounding is 1e-16 / step.
  constexpr double kStep = 1e-4;
  Closeness scores({1e-6, 1e-8}), errors({1e-5, 1e-8});
  double largest_effect = 0;
  for (const auto& cell : cells_of(prompt, options, model->config())) {
    const auto up = moved(cell.patch, kStep), down = moved(cell.patch, -kStep);
    std::vector<double> expected;
    for (std::size_t draw = 0; draw < up.size(); ++draw) {
      expected.push_back(base_scores[draw] + (up[draw] - down[draw]) / (2 * kStep));
    }
    const double mean = mean_of(expected);
    double squares = 0;
    for (const double score : expected) squares += (score - mean) * (score - mean);
    const auto n = static_cast<double>(expected.size());
    const auto& grid = trace.grids[cell.grid];
    const auto where = std::string(to_string(grid.kind)) + " " + std::to_string(cell.index);
    scores.compare(where, grid.scores[cell.index], mean);
    errors.compare(where, grid.standard_error[cell.index], n < 2 ? NAN : std::sqrt(squares / (n - 1) / n));
    largest_effect = std::max(largest_effect, std::abs(mean - mean_of(base_scores)));
  }
  scores.check();
  errors.check();
  CHECK(largest_effect > 1e-4);
}

TEST_CASE("a score is the base run's plus the finite difference of what the cell patches") {
  Example example;
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    for (const auto& target : {std::vector{2}, std::vector{2, 7}}) {
      CAPTURE(to_string(direction));
      CAPTURE(target.size());
      example.options.direction = direction;
      example.prompt.target = target;
      compare_with_differences(example);
    }
  }
}

TEST_CASE("through a mixture of experts it is the finite difference, too, the weights of the chosen included") {
  std::size_t mixtures = 0;
  for (const auto& golden : testing::golden_models()) {
    Example example;
    example.model = Decoder::load(golden.folder, LoadOptions{.dtype = at::kDouble, .products = Products::kUnpacked});
    if (!example.model->config().experts) continue;
    CAPTURE(golden.name);
    ++mixtures;
    example.options.window = example.options.head_window = 1;
    example.options.corruption.sigma = 1;
    for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
      example.options.direction = direction;
      compare_with_differences(example);
    }
  }
  CHECK(mixtures > 10);
}

TEST_CASE("every corruption is differentiated at") {
  Example example;
  auto& corruption = example.options.corruption;
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    example.options.direction = direction;
    for (const auto method : {CorruptionMethod::kZero, CorruptionMethod::kMean, CorruptionMethod::kTokens}) {
      CAPTURE(to_string(method));
      corruption.method = method;
      example.options.samples = 1;
      example.prompt.counter_ids.clear();
      if (method == CorruptionMethod::kTokens) example.prompt.counter_ids = {3, 1, 6, 5, 8};
      corruption.moments = std::make_shared<const EmbeddingMoments>(
          mean_embedding(*example.model, std::vector<std::int32_t>{2, 2, 5, 10}));
      compare_with_differences(example);
    }
  }
  corruption.method = CorruptionMethod::kNoise;
  corruption.replace = true;
  example.options.samples = 2;
  compare_with_differences(example);
}

TEST_CASE("of a small corruption, single layers have the exact effect up to its square") {
  // In a window the exact effect of the lower layers does not pass through the outputs patched above them; a derivative
  // does. With one layer there is nothing above.
  Example example;
  auto& options = example.options;
  options.window = options.head_window = 1;
  options.corruption.sigma = 1e-6;
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    options.direction = direction;
    const auto clean = run_clean(*example.model, example.prompt, options);
    const auto exact = trace_plain(*example.model, example.prompt, options, clean);
    const auto found = trace_gradient(*example.model, example.prompt, options, clean);
    const double base = direction == Direction::kNoising ? exact.high_score : exact.low_score;
    const double scale = std::abs(exact.total_effect());
    REQUIRE(scale > 1e-9);
    Closeness effects({1e-4, 1e-4 * scale});
    for (std::size_t grid = 0; grid < exact.grids.size(); ++grid) {
      for (std::size_t i = 0; i < exact.grids[grid].scores.size(); ++i) {
        effects.compare(std::string(to_string(exact.grids[grid].kind)) + " " + std::to_string(i),
                        found.grids[grid].scores[i] - base, exact.grids[grid].scores[i] - base);
      }
    }
    effects.check();
  }
}

TEST_CASE("the heads of a layer add up to its attention, whose projection is linear") {
  Example example;
  example.options.kinds = {Kind::kHead, Kind::kAttn};
  example.options.window = example.options.head_window = 1;
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    example.options.direction = direction;
    const auto trace = gradient(*example.model, example.prompt, example.options);
    const double base = direction == Direction::kNoising ? trace.high_score : trace.low_score;
    const auto& heads = trace.grids[0];
    REQUIRE(heads.heads == 3);
    double largest = 0;
    for (std::size_t cell = 0; cell < trace.grids[1].scores.size(); ++cell) {
      double sum = 0;
      for (std::size_t head = 0; head < 3; ++head) sum += heads.scores[3 * cell + head] - base;
      CHECK(sum == doctest::Approx(trace.grids[1].scores[cell] - base).epsilon(1e-9));
      largest = std::max(largest, std::abs(sum));
    }
    CHECK(largest > 0.001);
  }
}

TEST_CASE("cells before the subject and beside the last layer's last position have the base run's score") {
  Example example;
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    example.options.direction = direction;
    const auto trace = gradient(*example.model, example.prompt, example.options);
    const double base = direction == Direction::kNoising ? trace.high_score : trace.low_score;
    for (const auto& grid : trace.grids) {
      const auto row = static_cast<std::size_t>(trace.layers * grid.heads);
      for (std::size_t i = 0; i < row; ++i) CHECK(grid.scores[i] == base);
    }
    const auto L = static_cast<std::size_t>(trace.layers);
    for (std::size_t t = 0; t < 4; ++t) {
      CHECK(trace.grids[0].scores[t * L + L - 1] == doctest::Approx(base).epsilon(1e-12));
    }
    CHECK(std::abs(trace.grids[0].scores[4 * L + L - 1] - base) > 1e-4);
  }
}

TEST_CASE("listed positions have the rows that they have among all") {
  Example example;
  const auto all = gradient(*example.model, example.prompt, example.options);
  example.options.positions = PositionRule::parse("0,2,4");
  const auto some = gradient(*example.model, example.prompt, example.options);
  for (std::size_t grid = 0; grid < all.grids.size(); ++grid) {
    const auto& rows = some.grids[grid];
    REQUIRE(rows.positions == std::vector<std::int64_t>{0, 2, 4});
    const auto row = static_cast<std::size_t>(all.layers * rows.heads);
    for (std::size_t i = 0; i < rows.scores.size(); ++i) {
      const auto position = static_cast<std::size_t>(rows.positions[i / row]);
      CHECK(rows.scores[i] == all.grids[grid].scores[position * row + i % row]);
    }
  }
}

void compare_traces(const Trace& found, const Trace& expected, testing::Tolerance tolerance) {
  Closeness closeness(tolerance);
  closeness.compare("low_score", found.low_score, expected.low_score);
  closeness.compare("low_standard_error", found.low_standard_error, expected.low_standard_error);
  closeness.compare("largest_error", found.largest_error, expected.largest_error);
  REQUIRE(found.grids.size() == expected.grids.size());
  for (std::size_t grid = 0; grid < found.grids.size(); ++grid) {
    const auto& a = found.grids[grid];
    const auto& b = expected.grids[grid];
    REQUIRE(a.scores.size() == b.scores.size());
    for (std::size_t i = 0; i < a.scores.size(); ++i) {
      const auto where = std::string(to_string(a.kind)) + " " + std::to_string(i);
      closeness.compare(where, a.scores[i], b.scores[i]);
      closeness.compare(where + "'s error", a.standard_error[i], b.standard_error[i]);
    }
  }
  closeness.check();
}

TEST_CASE("draws taken a few at a time give what they give together") {
  Example example;
  example.options.samples = 7;
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    example.options.direction = direction;
    std::vector<std::int64_t> told;
    RunControl control;
    control.progress = [&](std::int64_t done, std::int64_t total) {
      CHECK(total == 7);
      told.push_back(done);
    };
    const auto together = gradient(*example.model, example.prompt, example.options, control);
    CHECK(told == std::vector<std::int64_t>{0, 7});
    CHECK(together.samples == 7);
    told.clear();
    control.memory = 1;
    compare_traces(gradient(*example.model, example.prompt, example.options, control), together, {1e-9, 1e-12});
    CHECK(told == std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7});
    told.clear();
    control.memory = 40'000;
    compare_traces(gradient(*example.model, example.prompt, example.options, control), together, {1e-9, 1e-12});
    CHECK(told.size() > 2);
    CHECK(told.size() < 8);
  }
}

TEST_CASE("streamed layers, and graphs that are made again, give what held ones do") {
  const Example example;
  const auto streamed = Decoder::load(example.folder.path(),
                                      LoadOptions{.dtype = at::kDouble, .memory = 0, .transposes = Transposes::kNone});
  REQUIRE(streamed->streamed());
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    auto options = example.options;
    options.direction = direction;
    const auto expected = gradient(*example.model, example.prompt, options);
    compare_traces(gradient(*streamed, example.prompt, options), expected, {1e-9, 1e-12});
    RunControl control;
    control.memory = 40'000;
    compare_traces(gradient(*streamed, example.prompt, options, control), expected, {1e-9, 1e-12});
  }
}

TEST_CASE("a caller's NoGradGuard does not matter, and no weight asks for a gradient") {
  Example example;
  const auto expected = gradient(*example.model, example.prompt, example.options);
  {
    const at::NoGradGuard no_grad;
    compare_traces(gradient(*example.model, example.prompt, example.options), expected, {0, 1e-15});
    CHECK_FALSE(at::GradMode::is_enabled());
  }
  CHECK(at::GradMode::is_enabled());
}

TEST_CASE("lower precision gives the same effects within its rounding, packed or not") {
  // bfloat16 keeps two to three digits of each product; what is left of them after four layers and back is one.
  const Example exact;
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    auto options = exact.options;
    options.direction = direction;
    const auto expected = gradient(*exact.model, exact.prompt, options);
    for (const auto& [dtype, products, tolerance] : {std::tuple{at::kFloat, Products::kUnpacked, 1e-5},
                                                     {at::kFloat, Products::kFast, 1e-5},
                                                     {at::kBFloat16, Products::kUnpacked, 0.25},
                                                     {at::kBFloat16, Products::kFast, 0.25}}) {
      const auto found = gradient(*exact.load(dtype, products), exact.prompt, options);
      for (std::size_t grid = 0; grid < found.grids.size(); ++grid) {
        double difference = 0, effect = 0;
        for (std::size_t i = 0; i < found.grids[grid].scores.size(); ++i) {
          const double score = expected.grids[grid].scores[i];
          difference = std::max(difference, std::abs(found.grids[grid].scores[i] - score));
          effect = std::max(effect, std::abs(expected.grids[grid].scores.front() - score));  // the first is the base
        }
        CAPTURE(to_string(found.grids[grid].kind));
        CHECK(difference < tolerance * effect);
      }
    }
  }
}

TEST_CASE("what gradients do not approximate is refused") {
  const Example example;
  const auto refused = [&](auto change) {
    auto prompt = example.prompt;
    auto options = example.options;
    change(prompt, options);
    const auto message = message_of<Error>([&] { gradient(*example.model, prompt, options); });
    CHECK(is_one_line(message));
    return message;
  };
  for (const auto kind : {Kind::kStateMlpSevered, Kind::kStateAttnSevered, Kind::kKnockout}) {
    const auto message = refused([&](TracePrompt&, TraceOptions& options) { options.kinds.push_back(kind); });
    CHECK(message == Contains("do not approximate " + std::string(to_string(kind))));
  }
  CHECK(refused([](TracePrompt&, TraceOptions& options) { options.measures = {Measure::kLogit}; }) ==
        Contains("measures and other targets"));
  CHECK(refused([](TracePrompt& prompt, TraceOptions&) { prompt.other_targets = {1}; }) ==
        Contains("measures and other targets"));
  CHECK(refused([](TracePrompt&, TraceOptions& options) { options.precision = 0.1; }) == Contains("precision"));
}

TEST_CASE("noise beyond all numbers is an error that says so") {
  Example example(at::kFloat);
  example.options.corruption.sigma = 1e39;
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    example.options.direction = direction;
    CHECK(message_of<Error>([&] { gradient(*example.model, example.prompt, example.options); }) ==
          Contains("noise of scale 1e+39 is too large"));
  }
}

TEST_CASE("a stop request ends the trace with Interrupted") {
  Example example;
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    example.options.direction = direction;
    std::stop_source source;
    RunControl control;
    control.memory = 1;
    control.progress = [&](std::int64_t done, std::int64_t) {
      if (done == 1) source.request_stop();
    };
    control.stop = source.get_token();
    CHECK_THROWS_AS(gradient(*example.model, example.prompt, example.options, control), Interrupted);
  }
}

}  // namespace
}  // namespace rometrace::gradient_test
