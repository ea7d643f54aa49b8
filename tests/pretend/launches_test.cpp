#include <ATen/TensorOperators.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "golden_models.hpp"
#include "pretend/pretend_device.hpp"
#include "random_model.hpp"
#include "rometrace/trace/sweep.hpp"

// What a sweep asks of a device: how much a layer launches, and that nothing in the layers waits for the host.

namespace rometrace::launches_test {
namespace {

using testing::DeviceCounts;
using testing::DeviceWatch;
using testing::golden_models;
using testing::pretend_device;

// A random GPT-2 of so many layers on the device.
class Model {
 public:
  explicit Model(std::int64_t layers) {
    std::mt19937 engine(1);
    write_random_model(folder_, {.layers = layers, .positions = 24}, engine);
    LoadOptions options;
    options.device = pretend_device();
    decoder_ = Decoder::load(folder_.path(), options);
  }
  const Decoder& operator*() const { return *decoder_; }

 private:
  testing::TemporaryFolder folder_;
  std::shared_ptr<const Decoder> decoder_;
};

const Decoder& model(std::int64_t layers) {
  static std::map<std::int64_t, Model> all;
  return *all.try_emplace(layers, layers).first->second;
}

TracePrompt prompt_of(std::int64_t T) {
  TracePrompt prompt;
  for (std::int64_t t = 0; t < T; ++t) prompt.token_ids.push_back(static_cast<std::int32_t>(1 + 3 * t % 7));
  prompt.subject_range = {1, 3};
  prompt.target = {2};
  return prompt;
}

TraceOptions options_of(std::vector<Kind> kinds, std::int64_t draws) {
  TraceOptions options;
  options.kinds = std::move(kinds);
  options.window = 3;
  options.head_window = 3;
  options.knockout_window = 3;
  options.samples = draws;
  options.corruption.sigma = 0.5;
  return options;
}

// What is asked of the device by a sweep of some facts of one shape, their clean runs left out.
DeviceCounts asked_by(const Decoder& of, const TracePrompt& prompt, const TraceOptions& options, std::size_t facts = 1,
                      const RunControl& control = {}) {
  const auto clean = run_clean(of, prompt, options);
  const std::vector<SweepFact> all(facts, {&prompt, &clean});
  const DeviceWatch watch;
  trace_sweeps(of, all, options, control);
  return watch.counts();
}

// All patches in one pass, and all rows in one block: what is shared out costs its launches again.
RunControl in_one_block() {
  RunControl control;
  control.memory = std::int64_t{1} << 40;
  control.block_rows = std::int64_t{1} << 30;
  return control;
}

// Of `layers` layers more than the model with `below` has.
struct Difference {
  DeviceCounts counts;
  std::int64_t layers;
};

Difference more_of(std::int64_t below, std::int64_t above, const TracePrompt& prompt, const TraceOptions& options,
                   std::size_t facts = 1) {
  const auto asked = [&](std::int64_t layers) {
    return asked_by(model(layers), prompt, options, facts, in_one_block());
  };
  return {asked(above) - asked(below), above - below};
}

// Those that only layers ask for: the head, which reads all answers some hundred at a time, has none of them.
std::int64_t of_layers_alone(const DeviceCounts& counts) {
  std::int64_t sum = 0;
  for (const auto* name : {"bmm.out", "_softmax.out", "masked_fill_.Scalar", "index_copy.out", "gelu.out"}) {
    const auto found = counts.operations.find(name);
    if (found != counts.operations.end()) sum += found->second;
  }
  return sum;
}

// As many for each layer.
void check_as_many(const Difference& found, const Difference& expected) {
  CHECK(of_layers_alone(found.counts) > 0);
  CHECK(of_layers_alone(found.counts) * expected.layers == of_layers_alone(expected.counts) * found.layers);
}

struct Asked {
  std::string name;
  std::vector<Kind> kinds;
  Direction direction = Direction::kDenoising;
};

std::vector<Asked> all_asked() {
  const std::vector<Kind> every = {Kind::kState,           Kind::kMlp,  Kind::kAttn,
                                   Kind::kStateMlpSevered, Kind::kHead, Kind::kKnockout,
                                   Kind::kStateAttnSevered};
  std::vector<Asked> all;
  for (const auto kind : every) all.push_back({std::string(to_string(kind)), {kind}});
  all.push_back({"all kinds", every});
  all.push_back({"all kinds, noising", every, Direction::kNoising});
  return all;
}

// Where windows reach neither the first layer nor the last.
constexpr std::int64_t kFew = 6, kMore = 8, kMost = 12;

TEST_CASE(
    "a layer of a sweep launches the same for few patches and many, for two draws and ten, for two facts and three") {
  for (const auto& [name, kinds, direction] : all_asked()) {
    CAPTURE(name);
    std::string line = "launches per layer, " + name + ":";
    for (const std::int64_t T : {5, 10, 20}) {
      CAPTURE(T);
      const auto prompt = prompt_of(T);
      auto options = options_of(kinds, 1);
      options.direction = direction;
      const auto one = more_of(kFew, kMore, prompt, options), further = more_of(kMore, kMost, prompt, options);
      // Each layer further up has all patches of the layers below it to take along.
      check_as_many(further, one);
      CAPTURE(one.counts.text());
      CAPTURE(further.counts.text());
      line += " " + std::to_string(one.counts.launches() / one.layers) + " (T = " + std::to_string(T) + ")";
      if (T > 5) continue;
      options.samples = 2;  // what is of one draw alone need not be copied to lie side by side
      const auto two = more_of(kFew, kMore, prompt, options);
      CAPTURE(two.counts.text());
      options.samples = 10;
      const auto ten = more_of(kFew, kMore, prompt, options);
      CAPTURE(ten.counts.text());
      check_as_many(ten, two);
      const auto two_facts = more_of(kFew, kMore, prompt, options, 2);
      CAPTURE(two_facts.counts.text());
      const auto three_facts = more_of(kFew, kMore, prompt, options, 3);
      CAPTURE(three_facts.counts.text());
      check_as_many(three_facts, two_facts);
    }
    MESSAGE(line);
  }
}

TEST_CASE("a sweep through more layers copies nothing more to the device or from it, and waits for nothing more") {
  for (const auto& [name, kinds, direction] : all_asked()) {
    CAPTURE(name);
    for (const std::int64_t T : {5, 20}) {
      auto options = options_of(kinds, 2);
      options.direction = direction;
      options.positions = {PositionRule::Which::kList, {1, 2, T - 1}};
      const auto more = more_of(kFew, kMost, prompt_of(T), options);
      CHECK(more.counts.to_device.count == 0);
      CHECK(more.counts.to_host.count == 0);
      CHECK(more.counts.numbers == 0);
      CHECK(more.counts.waits == 0);
    }
  }
}

// What is asked of the device while a sweep of one pass goes through the layers, from the base run's first to the last.
DeviceCounts asked_in_the_layers(const Decoder& of, const TracePrompt& prompt, const TraceOptions& options) {
  const auto clean = run_clean(of, prompt, options);
  std::optional<DeviceCounts> first, last;
  RunControl control;
  control.progress = [&](std::int64_t done, std::int64_t total) {
    if (done > 0 && !first) first = testing::device_counts();
    if (done == total && !last) last = testing::device_counts();
  };
  trace_sweep(of, prompt, options, clean, control);
  REQUIRE(last.has_value());
  return *last - *first;
}

TEST_CASE("within the layers of a sweep nothing is copied to the device or read of it, in every family") {
  for (const auto& golden : golden_models()) {
    CAPTURE(golden.name);
    LoadOptions load;
    load.device = pretend_device();
    load.dtype = at::kHalf;
    const auto of = Decoder::load(golden.folder, load);
    const bool mixes = of->config().experts.has_value();
    for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
      auto options = options_of({Kind::kState, Kind::kMlp, Kind::kAttn, Kind::kHead, Kind::kKnockout,
                                 Kind::kStateMlpSevered, Kind::kStateAttnSevered},
                                2);
      options.direction = direction;
      if (!mixes) options.neurons.emplace().given = {{0, 1}, {of->config().layers - 1, 0}};
      const auto asked = asked_in_the_layers(*of, prompt_of(6), options);
      CAPTURE(asked.text());
      CHECK(asked.launches() > 0);
      CHECK(asked.numbers == 0);
      // A mixture asks which experts have been chosen, and says for each which rows are its own.
      if (!mixes) CHECK(asked.to_device.count == 0);
      if (!mixes) CHECK(asked.waits == 0);
      if (mixes) CHECK(asked.waits <= 3 * of->config().layers);
    }
  }
}

}  // namespace
}  // namespace rometrace::launches_test
