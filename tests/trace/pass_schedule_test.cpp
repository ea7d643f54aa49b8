#include "trace/pass_schedule.hpp"

#include <algorithm>
#include <set>

#include "checks.hpp"

namespace rometrace::pass_schedule_test {
namespace {

constexpr std::int64_t kHeads = 2;

// A schedule with what it is made of, which it keeps.
struct Example {
  Example(std::int64_t tokens, std::int64_t draws, std::int64_t facts, std::vector<Kind> kinds, BlockRule rule = {},
          Direction direction = Direction::kDenoising, std::int64_t answer_tokens = 1) {
    config.layers = 6;
    config.heads = kHeads;
    config.attention.assign(6, {});
    prompt.token_ids.assign(static_cast<std::size_t>(tokens), 1);
    prompt.subject_range = {1, 3};
    if (answer_tokens > 1) prompt.target.assign(static_cast<std::size_t>(answer_tokens), 1);
    options.samples = draws;
    options.kinds = std::move(kinds);
    options.window = 3;
    options.direction = direction;
    shape.emplace(prompt, options, config.layers, facts);
    patches = patches_of(cells_of(prompt, options, config));
    std::vector<const Patch*> to_run;
    for (const auto& [patch, cells] : patches) {
      if (shape->outcome_of(patch) == Outcome::kToBeRun) to_run.push_back(&patch);
    }
    plan.emplace(*shape, std::move(to_run));
    sizes.other_draws = direction == Direction::kNoising ? draws : 1;
    sizes.other_inputs = shape->R;
    sizes.blocks = rule;
    sizes.by_products = true;
    schedule.emplace(*shape, *plan, config, sizes);
  }

  std::span<const std::int64_t> list(const Numbers& some) const {
    return std::span(schedule->numbers)
        .subspan(static_cast<std::size_t>(some.begin), static_cast<std::size_t>(some.count));
  }
  std::int64_t base_rows() const { return shape->rows(shape->base_run()); }
  std::int64_t other_rows() const { return shape->J * sizes.other_draws * (shape->R - shape->b); }

  DecoderConfig config;
  TracePrompt prompt;
  TraceOptions options;
  std::optional<SweepShape> shape;
  std::vector<PatchCells> patches;
  std::optional<SweepPlan> plan;
  ScheduleSizes sizes;
  std::optional<PassSchedule> schedule;
};

const std::vector<Kind> kAll = {
    Kind::kState, Kind::kMlp,     Kind::kAttn, Kind::kStateMlpSevered, Kind::kStateAttnSevered,
    Kind::kHead,  Kind::kKnockout};

std::vector<Example> examples() {
  std::vector<Example> list;
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    for (const auto& rule : {BlockRule{}, BlockRule{.asked = 7}, BlockRule{.asked = 1}, BlockRule{.workers = 3}}) {
      list.emplace_back(5, 3, 1, kAll, rule, direction);
      list.emplace_back(6, 2, 2, kAll, rule, direction, /*answer_tokens=*/2);
      list.emplace_back(4, 1, 1, std::vector{Kind::kState}, rule, direction);
    }
  }
  return list;
}

TEST_CASE("each row of a layer goes through it once, those of the base run alone and first") {
  for (const auto& example : examples()) {
    for (const auto& layer : example.schedule->layers) {
      std::int64_t row = 0;
      for (std::size_t i = 0; i < layer.blocks.size(); ++i) {
        const auto& block = layer.blocks[i];
        CHECK(block.row == row);
        std::int64_t rows = 0;
        for (const auto& part : block.parts) {
          const auto& segment = example.schedule->segments[part.segment];
          CHECK(segment.row + part.first * segment.length == row + rows);
          rows += part.count * segment.length;
          CHECK((part.segment == 0) == (i < layer.base_blocks));
        }
        CHECK(block.rows == rows);
        row += rows;
      }
      CHECK(row == layer.rows);
    }
  }
}

TEST_CASE("rows are given once, one after the other, until all patches have theirs") {
  for (const auto& example : examples()) {
    auto row = example.base_rows();
    for (const auto& layer : example.schedule->layers) {
      CHECK(layer.given_before.row == row);
      CHECK(layer.rows == row + layer.given_before.from.count);
      CHECK(layer.given_of_base.row == layer.rows);
      CHECK(layer.given_of_parents.row == layer.rows + layer.given_of_base.from.count);
      row = layer.given_of_parents.row + layer.given_of_parents.from.count;
      for (const auto from : example.list(layer.given_of_base.from)) CHECK(from < example.base_rows());
      for (const auto from : example.list(layer.given_of_parents.from)) CHECK(from < layer.given_of_parents.row);
    }
    CHECK(row == example.plan->rows);
  }
}

TEST_CASE("what is written is named once, and stands where something is") {
  for (const auto& example : examples()) {
    const auto check = [&](const Numbers& some, std::int64_t end) {
      const auto list = example.list(some);
      CHECK(std::set(list.begin(), list.end()).size() == list.size());
      CHECK(std::all_of(list.begin(), list.end(), [&](auto number) { return 0 <= number && number < end; }));
    };
    const auto check_from = [&](const Writes& writes, std::int64_t end) {
      CHECK(writes.rows.count == writes.from.count);
      for (const auto from : example.list(writes.from)) CHECK((0 <= from && from < end));
    };
    for (const auto& layer : example.schedule->layers) {
      for (const auto& block : layer.blocks) {
        if (block.asking) check(*block.asking, block.rows);
        if (block.used) check(*block.used, block.rows);
        check(block.heads.rows, kHeads * (block.asking ? block.asking->count : block.rows));
        check_from(block.heads, kHeads * example.other_rows());
        for (const auto& outputs : {block.attn, block.mlp}) {
          check(outputs.other.rows, block.rows);
          check_from(outputs.other, example.other_rows());
          check(outputs.base.rows, block.rows);
          check_from(outputs.base, example.base_rows());
        }
      }
      std::set<std::int64_t> begun;
      for (const auto& beginning : layer.beginnings) {
        for (const auto row : example.list(beginning.rows)) {
          CHECK(begun.insert(row).second);
          CHECK((layer.given_of_base.row <= row && row < layer.given_of_parents.row));
        }
        CHECK(beginning.base.count == beginning.rows.count);
        check_from({beginning.rows, beginning.base}, example.base_rows());
        check_from({beginning.rows, beginning.other}, example.other_rows());
      }
    }
    check(example.schedule->answers, example.plan->rows);
    CHECK(example.schedule->answers.count == example.shape->K * example.schedule->questions.count);
  }
}

TEST_CASE("a layer is as many blocks, and groups of attention, for many patches as for few") {
  for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
    const BlockRule all_at_once{.full = 100000};
    const Example few(5, 2, 1, kAll, all_at_once, direction), more(9, 40, 1, kAll, all_at_once, direction);
    for (std::size_t l = 1; l < few.schedule->layers.size(); ++l) {
      for (const auto* example : {&few, &more}) {
        const auto& layer = example->schedule->layers[l];
        REQUIRE(layer.blocks.size() == 2);          // the base run; all patches, with draws and without
        CHECK(layer.blocks[1].groups.size() <= 4);  // with draws and without, of the base runs and of the others
        CHECK(layer.beginnings.size() <= 4);        // states, MLP, attention, heads
      }
    }
  }
}

TEST_CASE("rows that workers share are as many blocks as workers, or twice as many where these are large") {
  const BlockRule alone{.full = 1000}, shared{.full = 1000, .workers = 4}, asked{.asked = 17, .workers = 4};
  CHECK(alone.of(50) == 1000);
  CHECK(shared.of(50) == 50);       // too few to be cut
  CHECK(shared.of(400) == 100);     // one for each
  CHECK(shared.of(2000) == 250);    // two for each
  CHECK(shared.of(12000) == 1000);  // no larger than they may be
  CHECK(asked.of(12000) == 17);
}

}  // namespace
}  // namespace rometrace::pass_schedule_test
