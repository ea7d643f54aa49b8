#include "rometrace/trace/sweep.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <tuple>
#include <variant>
#include <vector>

#include "checks.hpp"
#include "closeness.hpp"
#include "golden_models.hpp"
#include "random_model.hpp"
#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "rometrace/trace/plain.hpp"
#include "trace_closeness.hpp"
#include "trace_examples.hpp"

namespace rometrace::sweep_test {
namespace {

using testing::Closeness;
using testing::compare;
using testing::Contains;
using testing::Example;
using testing::golden_models;
using testing::golden_options;
using testing::golden_prompt;
using testing::message_of;
using testing::TemporaryFolder;
using testing::tolerances_of;

constexpr auto kDouble = testing::kDoubleTraces, kFloat = testing::kFloatTraces;

void compare_with_plain(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                        const RunControl& control) {
  const auto clean = run_clean(model, prompt, options);
  compare(trace_sweep(model, prompt, options, clean, control).trace, trace_plain(model, prompt, options, clean),
          tolerances_of(model.dtype()));
}

TEST_CASE("sweep = plain on every golden trace, in float64 and float32") {
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    for (const auto& golden : golden_models()) {
      const auto model = Decoder::load(golden.folder, dtype);
      for (const auto& trace : golden.golden.at("traces")) {
        CAPTURE(golden.name);
        compare_with_plain(*model, golden_prompt(trace), golden_options(trace), {});
      }
    }
  }
}

TEST_CASE("sweep = plain for random models, prompts, options, memory budgets and sizes of blocks") {
  constexpr unsigned kExamples = 150;
  std::int64_t several_passes = 0;
  for (unsigned seed = 0; seed < kExamples; ++seed) {
    CAPTURE(seed);
    const Example example(seed);
    CAPTURE(example.description());
    const auto dtype = seed % 3 == 0 ? at::kFloat : at::kDouble;
    const auto model = example.load(dtype);
    const auto row = model->config().width * static_cast<std::int64_t>(c10::elementSize(dtype));
    RunControl tight;
    tight.memory = example.memory_rows * row;
    tight.block_rows = example.block_rows;
    const auto clean = run_clean(*model, example.prompt, example.options);
    const auto plain = trace_plain(*model, example.prompt, example.options, clean);
    const auto swept = trace_sweep(*model, example.prompt, example.options, clean);
    CHECK(swept.passes == 1);
    compare(swept.trace, plain, tolerances_of(dtype));
    const auto cut = trace_sweep(*model, example.prompt, example.options, clean, tight);
    compare(cut.trace, plain, tolerances_of(dtype));
    several_passes += cut.passes > 1 ? 1 : 0;
  }
  CHECK(several_passes > kExamples / 4);
}

TEST_CASE("sweep = plain for models of every family, whatever is asked of them") {
  constexpr unsigned kOfEach = 6;
  for (const auto& golden : golden_models()) {
    CAPTURE(golden.name);
    for (unsigned seed = 0; seed < kOfEach; ++seed) {
      CAPTURE(seed);
      Example example(seed, golden);
      example.widen();
      CAPTURE(example.description());
      const auto model = example.load(at::kDouble);
      RunControl tight;
      tight.memory = example.memory_rows * model->config().width * 8;
      tight.block_rows = example.block_rows;
      const auto clean = run_clean(*model, example.prompt, example.options);
      const auto plain = trace_plain(*model, example.prompt, example.options, clean);
      compare(trace_sweep(*model, example.prompt, example.options, clean).trace, plain, kDouble);
      compare(trace_sweep(*model, example.prompt, example.options, clean, tight).trace, plain, kDouble);
    }
  }
}

TEST_CASE("layers that are read each time that they are used give what layers in memory give, in every family") {
  for (const auto& golden : golden_models()) {
    CAPTURE(golden.name);
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      Example example(7, golden);
      example.widen();
      CAPTURE(example.description());
      const auto held = example.load(dtype), streamed = example.load_streamed(dtype);
      REQUIRE(streamed->streamed());
      const auto clean = run_clean(*held, example.prompt, example.options);
      const auto again = run_clean(*streamed, example.prompt, example.options);
      CHECK(again.trace.high_score == doctest::Approx(clean.trace.high_score).epsilon(1e-6));
      compare(trace_sweep(*streamed, example.prompt, example.options, clean).trace,
              trace_sweep(*held, example.prompt, example.options, clean).trace, tolerances_of(dtype));
    }
  }
}

TEST_CASE("sweep = plain for kinds, directions, answers, corruptions and measures of all sorts") {
  constexpr unsigned kExamples = 400;
  std::int64_t several_passes = 0;
  for (unsigned seed = 1000; seed < 1000 + kExamples; ++seed) {
    CAPTURE(seed);
    Example example(seed);
    example.widen();
    CAPTURE(example.description());
    const auto model = example.load(at::kDouble);
    const auto row = model->config().width * static_cast<std::int64_t>(c10::elementSize(at::kDouble));
    RunControl tight;
    tight.memory = example.memory_rows * row;
    tight.block_rows = example.block_rows;
    const auto clean = run_clean(*model, example.prompt, example.options);
    const auto plain = trace_plain(*model, example.prompt, example.options, clean);
    compare(trace_sweep(*model, example.prompt, example.options, clean).trace, plain, kDouble);
    const auto cut = trace_sweep(*model, example.prompt, example.options, clean, tight);
    compare(cut.trace, plain, kDouble);
    several_passes += cut.passes > 1 ? 1 : 0;
  }
  CHECK(several_passes > kExamples / 4);
}

TEST_CASE("facts that share a sweep of all sorts have the scores that each has alone") {
  for (unsigned seed = 2000; seed < 2100; ++seed) {
    CAPTURE(seed);
    Example example(seed);
    example.widen();
    CAPTURE(example.description());
    const auto model = example.load(at::kDouble);
    std::vector<TracePrompt> prompts = example.prompts_of_its_shape(2 + seed % 3);
    std::vector<CleanRun> cleans;
    std::vector<SweepFact> facts;
    for (const auto& prompt : prompts) cleans.push_back(run_clean(*model, prompt, example.options));
    for (std::size_t i = 0; i < prompts.size(); ++i) facts.push_back({&prompts[i], &cleans[i]});
    const auto shared = trace_sweeps(*model, facts, example.options);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      REQUIRE(std::holds_alternative<Trace>(shared.outcomes[i]));
      compare(std::get<Trace>(shared.outcomes[i]), trace_sweep(*model, prompts[i], example.options, cleans[i]).trace,
              kDouble);
    }
  }
}

// Some prompts of one shape, with their clean runs: of every other one a target of its own is followed.
struct Group {
  Group(const Decoder& model, Example& example, std::size_t count) : prompts(example.prompts_of_its_shape(count)) {
    for (std::size_t i = 0; i < count; ++i) {
      auto& target = prompts[i].target;
      if (target.size() <= 1) target.clear();
      if (target.empty() && i % 2 == 1) target = {prompts[i].token_ids.back()};
      cleans.push_back(run_clean(model, prompts[i], example.options));
    }
  }

  std::vector<SweepFact> facts() const {
    std::vector<SweepFact> facts;
    for (std::size_t i = 0; i < prompts.size(); ++i) facts.push_back({&prompts[i], &cleans[i]});
    return facts;
  }

  std::vector<TracePrompt> prompts;
  std::vector<CleanRun> cleans;
};

TEST_CASE("facts that share a sweep have the scores that each has alone") {
  constexpr unsigned kExamples = 100;
  std::int64_t several_passes = 0, several_answers = 0, several_ends = 0;
  for (unsigned seed = 0; seed < kExamples; ++seed) {
    CAPTURE(seed);
    Example example(seed);
    CAPTURE(example.description());
    const auto dtype = seed % 3 == 0 ? at::kFloat : at::kDouble;
    const auto model = example.load(dtype);
    const auto count = 2 + seed % 5;
    const Group group(*model, example, count);
    std::set<std::int32_t> answers;
    std::set<std::size_t> ends;
    for (std::size_t i = 0; i < count; ++i) {
      answers.insert(group.cleans[i].trace.answer_id());
      ends.insert(group.prompts[i].subject_range.end);
    }
    several_answers += answers.size() > 1 ? 1 : 0;
    several_ends += ends.size() > 1 ? 1 : 0;

    RunControl tight;
    tight.memory =
        count * example.memory_rows * model->config().width * static_cast<std::int64_t>(c10::elementSize(dtype));
    tight.block_rows = example.block_rows;
    for (const auto& control : {RunControl(), tight}) {
      const auto shared = trace_sweeps(*model, group.facts(), example.options, control);
      REQUIRE(shared.outcomes.size() == count);
      for (std::size_t i = 0; i < count; ++i) {
        const auto alone = trace_sweep(*model, group.prompts[i], example.options, group.cleans[i]).trace;
        REQUIRE(std::holds_alternative<Trace>(shared.outcomes[i]));
        compare(std::get<Trace>(shared.outcomes[i]), alone, tolerances_of(dtype));
      }
      several_passes += shared.passes > 1 ? 1 : 0;
    }
  }
  CHECK(several_passes > kExamples / 4);
  CHECK(several_answers > kExamples / 2);
  CHECK(several_ends > kExamples / 2);
}

TEST_CASE("clean runs side by side are what each is alone, and one that is refused says why alone") {
  for (unsigned seed = 0; seed < 30; ++seed) {
    CAPTURE(seed);
    Example example(seed);
    const auto model = example.load(at::kDouble);
    auto prompts = example.prompts_of_its_shape(4);
    prompts[1].token_ids.front() = -1;
    std::vector<const TracePrompt*> list;
    for (const auto& prompt : prompts) list.push_back(&prompt);
    const auto together = run_clean_together(*model, list, example.options);
    REQUIRE(together.size() == prompts.size());
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      const auto run = [&] { return run_clean(*model, prompts[i], example.options); };
      if (i == 1) {
        CHECK(message_of<Error>(run) == std::get<Error>(together[i]).what());
        continue;
      }
      const auto alone = run();
      const auto& beside = std::get<CleanRun>(together[i]);
      CHECK(beside.trace.high_score == doctest::Approx(alone.trace.high_score).epsilon(1e-9));
      CHECK((beside.recording.inputs - alone.recording.inputs).abs().max().item<double>() < 1e-9);
      for (const auto& [site, outputs] : alone.recording.outputs) {
        CHECK((beside.recording.outputs.at(site) - outputs).abs().max().item<double>() < 1e-9);
      }
      CHECK((beside.log_probabilities - alone.log_probabilities).abs().max().item<double>() < 1e-9);
    }
  }
}

TEST_CASE("a fact whose output is not a number is the only one of its sweep to fail") {
  std::int64_t mixed = 0;
  for (unsigned seed = 0; seed < 10; ++seed) {
    Example example(seed);
    const auto model = example.load(at::kFloat);
    const Group group(*model, example, 8);
    // About the largest float32: of a longer subject's noise, which is more draws, some overflow before.
    for (example.options.corruption.sigma = 5e37; example.options.corruption.sigma < 5e38;
         example.options.corruption.sigma *= 1.1) {
      CAPTURE(example.options.corruption.sigma);
      const auto shared = trace_sweeps(*model, group.facts(), example.options);
      std::size_t failed = 0;
      for (std::size_t i = 0; i < group.prompts.size(); ++i) {
        const auto trace = [&] {
          return trace_sweep(*model, group.prompts[i], example.options, group.cleans[i]).trace;
        };
        if (const auto* error = std::get_if<Error>(&shared.outcomes[i])) {
          ++failed;
          CHECK(message_of<Error>(trace) == error->what());
        } else {
          compare(std::get<Trace>(shared.outcomes[i]), trace(), kFloat);
        }
      }
      mixed += 0 < failed && failed < group.prompts.size() ? 1 : 0;
    }
  }
  CHECK(mixed > 0);
}

TEST_CASE("what a fact's clean run holds reaches no other fact of its sweep") {
  for (unsigned seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    Example example(seed);
    const auto model = example.load(at::kDouble);
    Group group(*model, example, 3);
    const auto before = trace_sweeps(*model, group.facts(), example.options);
    group.cleans[1].recording.inputs.fill_(std::numeric_limits<double>::quiet_NaN());
    for (auto& [site, outputs] : group.cleans[1].recording.outputs)
      outputs.fill_(std::numeric_limits<double>::quiet_NaN());
    const auto after = trace_sweeps(*model, group.facts(), example.options);
    for (const std::size_t i : {0, 2}) {
      compare(std::get<Trace>(after.outcomes[i]), std::get<Trace>(before.outcomes[i]), kDouble);
    }
  }
}

TEST_CASE("facts that should share a sweep fit into one pass, and are as many for each prompt of the shape") {
  std::int64_t shared = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    Example example(seed);
    CAPTURE(example.description());
    const auto model = example.load(at::kFloat);
    RunControl control;
    for (std::int64_t memory = least_memory(*model, example.prompt, example.options); memory < 1 << 24; memory *= 3) {
      control.memory = memory;
      const auto count = facts_per_sweep(*model, example.prompt, example.options, control);
      // The shape counts, and nothing else of a prompt.
      for (const auto& other : example.prompts_of_its_shape(3)) {
        CHECK(facts_per_sweep(*model, other, example.options, control) == count);
      }
      if (count == 1) continue;
      ++shared;
      const Group group(*model, example, static_cast<std::size_t>(count));
      CHECK(trace_sweeps(*model, group.facts(), example.options, control).passes == 1);
    }
  }
  CHECK(shared > 20);
}

TEST_CASE("a fact that fills a block of rows is traced alone") {
  std::mt19937 engine(1);
  const TemporaryFolder folder;
  write_random_model(folder, {.layers = 3, .width = 256, .heads = 4, .inner = 1024, .vocab = 11}, engine);
  const auto model = Decoder::load(folder.path());
  const TracePrompt prompt{"", "", {1, 2, 3, 4, 5, 6, 7, 8}, {0, 2}};
  TraceOptions options;
  options.samples = 50;
  CHECK(facts_per_sweep(*model, prompt, options) == 1);
  options.samples = 1;
  CHECK(facts_per_sweep(*model, prompt, options) > 1);
  RunControl small_blocks;
  small_blocks.block_rows = 16;
  CHECK(facts_per_sweep(*model, prompt, options, small_blocks) == 1);
}

TEST_CASE("prompts of different shapes are not taken into one sweep") {
  const Example example(5);
  const auto model = example.load(at::kFloat);
  const auto clean = run_clean(*model, example.prompt, example.options);
  auto longer = example.prompt, later = example.prompt;
  longer.token_ids.push_back(0);
  ++later.subject_range.begin;
  for (const auto& other : {longer, later}) {
    const std::vector<SweepFact> facts = {{&example.prompt, &clean}, {&other, &clean}};
    CHECK_THROWS_AS(trace_sweeps(*model, facts, example.options), c10::Error);
  }
}

TEST_CASE("the result does not depend on the number of threads") {
  const auto example = Example(3);
  const auto model = example.load(at::kFloat);
  const auto threads = at::get_num_threads();
  const auto trace = [&] {
    return trace_sweep(*model, example.prompt, example.options, run_clean(*model, example.prompt, example.options))
        .trace;
  };
  at::set_num_threads(1);
  const auto one = trace();
  at::set_num_threads(3);
  auto three = trace();
  at::set_num_threads(threads);
  three.high_score = one.high_score;  // within rounding; compare() wants it of the same run
  compare(three, one, kFloat);
}

TEST_CASE("cells that need no run have their value exactly") {
  for (unsigned seed = 0; seed < 20; ++seed) {
    Example example(seed);
    example.options.kinds = {Kind::kState, Kind::kMlp, Kind::kAttn};
    const auto model = example.load(at::kFloat);
    const auto clean = run_clean(*model, example.prompt, example.options);
    const auto trace = trace_sweep(*model, example.prompt, example.options, clean).trace;
    const auto T = trace.tokens, L = trace.layers;
    const auto score = [&](std::size_t grid, std::int64_t t, std::int64_t l) {
      return trace.grids[grid].scores[static_cast<std::size_t>(t * L + l)];
    };
    for (std::int64_t t = 0; t < static_cast<std::int64_t>(example.prompt.subject_range.begin); ++t) {
      for (std::int64_t l = 0; l < L; ++l) {
        for (std::size_t grid = 0; grid < 3; ++grid) CHECK(score(grid, t, l) == trace.low_score);
      }
    }
    for (std::int64_t t = 0; t + 1 < T; ++t) CHECK(score(0, t, L - 1) == trace.low_score);
    CHECK(score(0, T - 1, L - 1) == trace.high_score);
  }
}

// Entering a layer, one set of rows for each distinct history of a patched run, with all of its rows from the restored
// one on. Windows with the same beginning share theirs up to the first layer that one restores and another does not.
TokenLayers work_needed(const TracePrompt& prompt, const TraceOptions& options, std::int64_t L) {
  const auto N = options.samples, T = static_cast<std::int64_t>(prompt.token_ids.size()),
             b = static_cast<std::int64_t>(prompt.subject_range.begin);
  std::set<std::tuple<Kind, std::int64_t, std::int64_t, std::int64_t>> patches;  // kind, t, begin, end
  for (const Kind kind : options.kinds) {
    for (std::int64_t t = b; t < T; ++t) {
      for (std::int64_t l = 0; l < L; ++l) {
        const auto range = window_of(l, kind == Kind::kState ? 1 : options.window, L);
        const bool nothing_changes = range.begin == L - 1 && t < T - 1;
        const bool clean = kind == Kind::kState && t == T - 1 && (range.begin == L - 1 || t == b);
        if (!nothing_changes && !clean) patches.insert({kind, t, range.begin, range.end});
      }
    }
  }
  const bool state_at_b = std::any_of(patches.begin(), patches.end(), [&](const auto& patch) {
    return std::get<Kind>(patch) == Kind::kState && std::get<1>(patch) == b;
  });
  TokenLayers work;
  work.answers = N * (1 + static_cast<std::int64_t>(patches.size()));
  for (std::int64_t layer = 0; layer < L; ++layer) {
    const bool last = layer == L - 1;
    work.keys_values += b + (state_at_b ? 1 : 0) + N * (T - b);
    work.attention += N * (last ? 1 : T - b);
    work.mlp += N * (last ? 1 : T - b);
    std::map<std::tuple<Kind, std::int64_t, std::int64_t, std::int64_t>, std::int64_t> rows_of_history;
    bool attention_begins = false;
    for (const auto& [kind, t, begin, end] : patches) {
      attention_begins |= kind == Kind::kAttn && begin == layer;
      if (begin >= layer) continue;
      const auto parted = end <= layer ? end : L + 1;  // from `end` on a run of its own
      rows_of_history[{kind, t, begin, parted}] = T - t - (kind == Kind::kState && t == b ? 1 : 0);
    }
    for (const auto& [history, rows] : rows_of_history) {
      const auto& [kind, t, begin, parted] = history;
      const bool restored = kind != Kind::kState && parted == L + 1;
      const auto used = last ? 1 : rows;
      const bool left_out = restored && (!last || rows == 1);
      work.keys_values += N * rows;
      work.attention += N * (used - (kind == Kind::kAttn && left_out ? 1 : 0));
      work.mlp += N * (used - (kind == Kind::kMlp && left_out ? 1 : 0));
    }
    if (attention_begins) work.mlp += N * (last ? 1 : T - b);
  }
  return work;
}

TEST_CASE("the sweep does the work of the rows that differ, and no more") {
  for (unsigned seed = 0; seed < 60; ++seed) {
    const Example example(seed);
    CAPTURE(example.description());
    const auto model = example.load(at::kFloat);
    const auto clean = run_clean(*model, example.prompt, example.options);
    const auto done = trace_sweep(*model, example.prompt, example.options, clean).work;
    const auto needed = work_needed(example.prompt, example.options, model->config().layers);
    CHECK(done.keys_values == needed.keys_values);
    CHECK(done.attention == needed.attention);
    CHECK(done.mlp == needed.mlp);
    CHECK(done.answers == needed.answers);
  }
}

TEST_CASE("rows of mixtures count apart, and cost as many experts as are chosen") {
  for (const auto& golden : golden_models()) {
    const auto model = Decoder::load(golden.folder);
    const auto& config = model->config();
    if (!config.experts) continue;
    CAPTURE(golden.name);
    TracePrompt prompt;
    prompt.token_ids = {1, 2, 3, 4, 5, 6};
    prompt.subject_range = {1, 3};
    TraceOptions options;
    options.kinds = {Kind::kState, Kind::kMlp};
    options.samples = 2;
    options.window = 1;
    options.corruption.sigma = 0.5;
    const auto work = trace_sweep(*model, prompt, options, run_clean(*model, prompt, options)).work;
    const auto needed = work_needed(prompt, options, config.layers);
    CHECK(work.mlp + work.mixture == needed.mlp);
    CHECK((work.mlp > 0) == !config.dense_layers.empty());
    CHECK(work.mixture > 0);
    const auto& experts = *config.experts;
    const auto D = config.width;
    TokenLayers one;
    one.mixture = 1;
    auto numbers = D * experts.count + 3 * D * experts.chosen * experts.width;
    if (experts.shared_width > 0) numbers += 3 * D * experts.shared_width + D;
    CHECK(one.flops(config) == 2.0 * static_cast<double>(numbers));
    CHECK(TokenLayers::through_layers(3, config).mixture ==
          3 * (config.layers - static_cast<std::int64_t>(config.dense_layers.size())));
  }
}

TEST_CASE("facts that share a sweep take the work that they take alone") {
  for (unsigned seed = 0; seed < 30; ++seed) {
    Example example(seed);
    CAPTURE(example.description());
    const auto model = example.load(at::kFloat);
    const auto count = 1 + seed % 4;
    const Group group(*model, example, count);
    RunControl control;
    std::int64_t all = 0;
    control.progress = [&](std::int64_t, std::int64_t total) { all = total; };
    const auto done = trace_sweeps(*model, group.facts(), example.options, control).work;
    const auto of_one = work_needed(example.prompt, example.options, model->config().layers);
    CHECK(done.keys_values == count * of_one.keys_values);
    CHECK(done.attention == count * of_one.attention);
    CHECK(done.mlp == count * of_one.mlp);
    CHECK(done.answers == count * of_one.answers);
    CHECK(all == done.keys_values);
  }
}

TEST_CASE("the states' cost is the formula's") {
  std::mt19937 engine(1);
  const TemporaryFolder folder;
  const std::int64_t L = 7, T = 9, b = 3, N = 4, V = 11, D = 8, F = 32;
  write_random_model(folder, {.layers = L, .width = D, .inner = F, .vocab = V}, engine);
  const auto model = Decoder::load(folder.path());
  TracePrompt prompt;
  prompt.token_ids = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  prompt.subject_range = {3, 5};
  TraceOptions options;
  options.kinds = {Kind::kState};
  options.samples = N;
  options.corruption.sigma = 0.5;
  const auto work = trace_sweep(*model, prompt, options, run_clean(*model, prompt, options)).work;
  const auto rows = (T - b) * (T - b + 1) / 2 - 1;  // of all positions; the subject's first needs one row fewer
  const auto base = L * (N * (T - b) + b + 1);
  CHECK(work.keys_values == base + N * L * (L - 1) / 2 * rows);
  const auto last_layer = 1 + (T - b) * (L - 1);  // of the corrupted run and each patch
  const auto below = (L - 1) * N * (T - b) + N * (L - 1) * (L - 2) / 2 * rows;
  CHECK(work.attention == below + N * last_layer);
  CHECK(work.mlp == work.attention);
  CHECK(work.answers == N * last_layer);
  CHECK(work.flops(model->config()) ==
        doctest::Approx(4.0 * static_cast<double>((work.keys_values + work.attention) * D * D + work.mlp * D * F) +
                        2.0 * static_cast<double>(work.answers * D * V)));
}

TEST_CASE("progress counts up to all token-layers, over all passes") {
  const Example example(5);
  const auto model = example.load(at::kFloat);
  const auto clean = run_clean(*model, example.prompt, example.options);
  RunControl control;
  control.memory = example.memory_rows * model->config().width * 4;
  std::int64_t last = 0, all = 0;
  bool rises = true;
  control.progress = [&](std::int64_t done, std::int64_t total) {
    rises = rises && done >= last;
    last = done;
    all = total;
  };
  const auto sweep = trace_sweep(*model, example.prompt, example.options, clean, control);
  CHECK(sweep.passes > 1);
  CHECK(rises);
  CHECK(last == all);
  CHECK(all == sweep.work.keys_values);
}

TEST_CASE("a stop request ends the sweep with Interrupted") {
  const Example example(5);
  const auto model = example.load(at::kFloat);
  std::stop_source source;
  RunControl control;
  control.progress = [&](std::int64_t, std::int64_t) { source.request_stop(); };
  control.stop = source.get_token();
  const auto clean = run_clean(*model, example.prompt, example.options);
  CHECK_THROWS_AS(trace_sweep(*model, example.prompt, example.options, clean, control), Interrupted);
}

TEST_CASE("memory that does not hold the corrupted run and one patch is refused with what is needed") {
  const Example example(5);
  const auto model = example.load(at::kFloat);
  const auto clean = run_clean(*model, example.prompt, example.options);
  RunControl control;
  control.memory = 16;
  CHECK(message_of<Error>([&] { trace_sweep(*model, example.prompt, example.options, clean, control); }) ==
        Contains("16B, does not hold the unpatched run and one patched run"));
  control.memory = least_memory(*model, example.prompt, example.options);
  CHECK(trace_sweep(*model, example.prompt, example.options, clean, control).passes > 1);
  --control.memory;
  CHECK_THROWS_AS(trace_sweep(*model, example.prompt, example.options, clean, control), Error);
}

TEST_CASE("noise that takes the model beyond numbers is refused") {
  auto example = Example(2);
  example.options.corruption.sigma = 1e38;
  const auto model = example.load(at::kFloat);
  const auto clean = run_clean(*model, example.prompt, example.options);
  CHECK(message_of<Error>([&] { trace_sweep(*model, example.prompt, example.options, clean); }) ==
        Contains("noise of scale 1e+38 is too large"));
}

TEST_CASE("in bfloat16 both engines give the same scores, near those of float32, packed or not") {
  Closeness to_plain({0, 0.05}), to_float({0, 0.1});
  for (unsigned seed = 0; seed < 20; ++seed) {
    Example example(seed);
    example.prompt.target = {0};  // an answer whatever the rounding
    const auto exact_model = example.load(at::kFloat);
    const auto exact = trace_sweep(*exact_model, example.prompt, example.options,
                                   run_clean(*exact_model, example.prompt, example.options))
                           .trace;
    for (const auto products : {Products::kFast, Products::kUnpacked}) {
      const auto model = example.load_in_bfloat16(products);
      const auto clean = run_clean(*model, example.prompt, example.options);
      const auto swept = trace_sweep(*model, example.prompt, example.options, clean).trace;
      const auto plain = trace_plain(*model, example.prompt, example.options, clean);
      for (std::size_t i = 0; i < exact.grids[0].scores.size(); ++i) {
        to_plain.compare("cell", swept.grids[0].scores[i], plain.grids[0].scores[i]);
        to_float.compare("cell", swept.grids[0].scores[i], exact.grids[0].scores[i]);
      }
    }
  }
  // Two or three digits a product, over some layers of a random model with logits of a few units.
  to_plain.check();
  to_float.check();
}

}  // namespace
}  // namespace rometrace::sweep_test
