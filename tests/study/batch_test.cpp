#include "rometrace/study/batch.hpp"

#include <ATen/Parallel.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "closeness.hpp"
#include "rometrace/error.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/sweep.hpp"

namespace rometrace::batch_test {
namespace {

/// The demo model with facts of several shapes, some of which cannot be traced.
class Study {
 public:
  Study()
      : folder_(std::filesystem::path(ROMETRACE_SOURCE_DIR) / "share/rometrace/demo"),
        tokenizer(Tokenizer::load(folder_)),
        model(Decoder::load(folder_)) {
    options.trace.kinds = {Kind::kState};
    options.trace.samples = 2;
    options.trace.corruption.sigma = 0.5;
    add("Miles Davis", "{} plays the", "trumpet");
    add("Miles Davis", "{} is a master of the", "trumpet");
    records.emplace_back(BadRecord{3, "facts, record 3", std::nullopt, false, "facts, record 3: no subject"});
    add("Louis Armstrong", "{} plays the", "trumpet");
    add("Miles Davis", "{} plays the", "piano");
    add("John Coltrane", "{} plays the", "saxophone");
    std::string longer;
    for (int i = 0; i < 100; ++i) longer += "very ";
    add("Miles Davis", longer + "{} plays the", "trumpet");
    for (std::size_t i = 0; i < records.size(); ++i) {
      BatchItem item;
      item.record = &records[i];
      item.order = static_cast<std::int64_t>(i) + 1;
      items.push_back(item);
    }
  }

  std::vector<BatchResult> run(const RunControl& control = {}) const { return run_on(*model, control); }

  /// On the models of Replicas, or on a Decoder.
  template <typename Models>
  std::vector<BatchResult> run_on(const Models& models, const RunControl& control = {}) const {
    std::vector<BatchResult> results;
    std::vector<std::size_t> order;
    complete = trace_facts(models, tokenizer, items, options, control, [&](std::size_t index, BatchResult&& result) {
      order.push_back(index);
      results.push_back(std::move(result));
    });
    for (std::size_t i = 1; i < order.size(); ++i) CHECK(order[i - 1] < order[i]);
    return results;
  }

  const std::filesystem::path& folder() const { return folder_; }

 private:
  void add(const std::string& subject, const std::string& prompt, const std::string& object) {
    Fact fact;
    fact.record = static_cast<std::int64_t>(records.size()) + 1;
    fact.where = "facts, record " + std::to_string(fact.record);
    fact.id = std::to_string(fact.record);
    fact.subject = subject;
    fact.object = object;
    auto placed = fill_slot(prompt, subject);
    fact.wordings = {{std::move(placed.prompt), false, placed.subject}};
    records.emplace_back(std::move(fact));
  }

  std::filesystem::path folder_;

 public:
  Tokenizer tokenizer;
  std::shared_ptr<const Decoder> model;
  BatchOptions options;
  std::vector<std::variant<Fact, BadRecord>> records;
  std::vector<BatchItem> items;
  mutable bool complete = false;
};

std::vector<std::string> words(const std::vector<BatchResult>& results) {
  std::vector<std::string> list;
  for (const auto& result : results) {
    list.emplace_back(result.verdict.cause ? to_string(*result.verdict.cause) : to_string(result.verdict.status));
  }
  return list;
}

TEST_CASE("each fact of a batch has its verdict, in order, whatever shares a sweep with it") {
  Study study;
  for (const std::int64_t together : {0, 1, 2, 5}) {
    study.options.facts_per_sweep = together;
    const auto results = study.run();
    CHECK(study.complete);
    CHECK(words(results) ==
          std::vector<std::string>{"traced", "traced", "record", "traced", "other_answer", "traced", "prompt"});
    for (std::size_t i = 0; i < results.size(); ++i) {
      CHECK(results[i].fact.order == static_cast<std::int64_t>(i) + 1);
      if (results[i].verdict.status != Status::kTraced) continue;
      const auto clean = run_clean(*study.model, results[i].prompt, study.options.trace);
      const auto alone = trace_sweep(*study.model, results[i].prompt, study.options.trace, clean).trace;
      CHECK(results[i].trace.low_score == doctest::Approx(alone.low_score).epsilon(1e-5));
      for (std::size_t cell = 0; cell < alone.grids[0].scores.size(); ++cell) {
        CHECK(results[i].trace.grids[0].scores[cell] == doctest::Approx(alone.grids[0].scores[cell]).epsilon(1e-5));
      }
    }
  }
}

TEST_CASE("facts that an earlier run has written are not told again, and the others have the same numbers") {
  Study study;
  study.options.facts_per_sweep = 2;
  const auto whole = study.run();
  for (std::size_t i = 0; i < 2; ++i) study.items[i].written = true;
  const auto rest = study.run();
  REQUIRE(rest.size() == whole.size() - 2);
  for (std::size_t i = 0; i < rest.size(); ++i) {
    CHECK(rest[i].fact.order == whole[i + 2].fact.order);
    CHECK(rest[i].verdict.cause == whole[i + 2].verdict.cause);
    if (rest[i].verdict.status != Status::kTraced) continue;
    CHECK(rest[i].trace.low_score == whole[i + 2].trace.low_score);
  }
}

// What the facts' results say, to the last bit.
std::vector<std::string> numbers(const std::vector<BatchResult>& results) {
  std::vector<std::string> list;
  for (const auto& result : results) {
    auto text = std::to_string(result.fact.order) + " " + std::string(to_string(result.verdict.status)) + " " +
                result.verdict.reason;
    const auto add = [&](double number) { text += " " + nlohmann::json(number).dump(); };
    add(result.trace.high_score);
    add(result.trace.low_score);
    for (const auto& grid : result.trace.grids) {
      for (const auto score : grid.scores) add(score);
    }
    list.push_back(std::move(text));
  }
  return list;
}

TEST_CASE("several models trace what one does, to the last bit and in the same order, whatever shares sweeps") {
  const auto threads = at::get_num_threads();
  at::set_num_threads(1);  // as each of several models has
  for (const auto engine : {Engine::kSweep, Engine::kPlain, Engine::kGradient}) {
    for (const std::int64_t together : {1, 2, 5}) {
      if (engine != Engine::kSweep && together > 1) continue;
      Study study;
      study.options.engine = engine;
      study.options.facts_per_sweep = together;
      study.options.on_other_answer = OnOtherAnswer::kTrace;
      if (engine != Engine::kGradient) study.options.answer = AnswerRule::parse("greedy:2");
      for (const std::int64_t chunk : {0, 2, 3}) {
        study.options.chunk = chunk;
        const auto alone = study.run();
        REQUIRE(alone.size() == study.items.size());
        for (const std::size_t count : {1, 2, 4, 9}) {
          const auto models = Replicas::load(study.folder(), {}, std::vector<at::Device>(count, at::Device(at::kCPU)));
          const auto shared = study.run_on(models);
          CHECK(study.complete);
          CHECK(numbers(shared) == numbers(alone));
          for (std::size_t i = 0; i < shared.size(); ++i) {
            CHECK(shared[i].device.has_value() == !shared[i].trace.answer_ids.empty());
            if (shared[i].device) CHECK(*shared[i].device == at::Device(at::kCPU));
          }
        }
      }
    }
  }
  at::set_num_threads(threads);
}

TEST_CASE("facts of several chunks share no sweep, so each has what its chunk alone gives") {
  Study study;
  study.options.facts_per_sweep = 5;
  study.options.chunk = 4;
  const auto whole = study.run();
  auto items = study.items;
  std::vector<BatchResult> parts;
  for (const std::size_t begin : {0, 4}) {
    study.items.assign(items.begin() + static_cast<std::ptrdiff_t>(begin),
                       begin == 0 ? items.begin() + 4 : items.end());
    for (auto& result : study.run()) parts.push_back(std::move(result));
  }
  CHECK(numbers(whole) == numbers(parts));
}

TEST_CASE("a fact that fails or a stop on one of several models leaves what the others finished, in order") {
  Study study;
  study.options.facts_per_sweep = 1;
  const auto models = Replicas::load(study.folder(), {}, std::vector<at::Device>(3, at::Device(at::kCPU)));
  study.items[0].written = true;
  const auto rest = study.run_on(models);
  CHECK(study.complete);
  REQUIRE(rest.size() == study.items.size() - 1);
  CHECK(words(rest).back() == "prompt");
  CHECK(words(rest)[1] == "record");

  study.items[0].written = false;
  const auto stopped_by_the_first = [&] {
    std::stop_source stop;
    RunControl control;
    control.stop = stop.get_token();
    std::vector<std::int64_t> orders;
    const bool complete = trace_facts(models, study.tokenizer, study.items, study.options, control,
                                      [&](std::size_t, BatchResult&& result) {
                                        orders.push_back(result.fact.order);
                                        stop.request_stop();
                                      });
    CHECK(complete == (orders.size() == study.items.size()));  // the others may have come to their ends
    return orders;
  };
  const auto orders = stopped_by_the_first();
  REQUIRE_FALSE(orders.empty());
  for (std::size_t i = 0; i < orders.size(); ++i) CHECK(orders[i] == static_cast<std::int64_t>(i) + 1);
  std::swap(study.items[0], study.items[2]);  // a bad record, told before any sweep is begun
  CHECK(stopped_by_the_first() == std::vector<std::int64_t>{3});
}

TEST_CASE("a round is a chunk for each model, several where chunks are small") {
  const auto one = Replicas::load(Study().folder(), {}, std::vector<at::Device>(1, at::Device(at::kCPU)));
  const auto three = Replicas::load(Study().folder(), {}, std::vector<at::Device>(3, at::Device(at::kCPU)));
  CHECK(batch_round(one, 1) == 1);
  CHECK(batch_round(one, 100) == 100);
  CHECK(batch_round(three, 1) == 12);
  CHECK(batch_round(three, 3) == 9);
  CHECK(batch_round(three, 100) == 300);
}

TEST_CASE("a stop during a sweep finishes it, tells what is complete and in order, and no more") {
  Study study;
  study.options.facts_per_sweep = 1;
  std::stop_source stop;
  RunControl control;
  control.stop = stop.get_token();
  control.progress = [&](std::int64_t, std::int64_t) { stop.request_stop(); };
  const auto results = study.run(control);
  CHECK_FALSE(study.complete);
  CHECK(words(results) == std::vector<std::string>{"traced"});
}

TEST_CASE("where weights are read again and again, a stop of the model's own is heeded during a sweep") {
  for (const auto engine : {Engine::kSweep, Engine::kPlain}) {
    std::stop_source stop;
    LoadOptions streamed;
    streamed.memory = 0;
    streamed.stop = stop.get_token();
    Study study;
    study.model = Decoder::load(ROMETRACE_SOURCE_DIR "/share/rometrace/demo", streamed);
    study.options.engine = engine;
    study.options.facts_per_sweep = 1;
    RunControl control;
    std::int64_t steps = 0;
    control.progress = [&](std::int64_t, std::int64_t) {
      if (++steps == 2) stop.request_stop();
    };
    CHECK(study.run(control).empty());
    CHECK_FALSE(study.complete);
  }
}

TEST_CASE("noise beyond numbers fails the fact and not the batch") {
  Study study;
  study.options.trace.corruption.sigma = 1e38;
  const auto results = study.run();
  CHECK(study.complete);
  CHECK(words(results)[0] == "trace");
  CHECK(results[0].verdict.reason.starts_with("facts, record 1: "));
  CHECK(results.size() == study.items.size());
}

TEST_CASE("a fact is followed as it was asked for") {
  Study study;
  study.options.follow = Follow::kObject;
  CHECK(words(study.run())[4] == "traced");
  study.options.follow = Follow::kPrediction;
  study.options.on_other_answer = OnOtherAnswer::kTrace;
  const auto results = study.run();
  CHECK(words(results)[4] == "traced");
  CHECK(results[4].trace.answer_id() == results[0].trace.answer_id());
}

TEST_CASE("memory bounds the facts that share a sweep, and the chunk") {
  Study study;
  study.options.facts_per_sweep = 1000;
  const auto shapes = shapes_of(*study.model, study.tokenizer, study.items, study.options);
  CHECK(shapes.size() < 5);  // facts 1, 4, 5 and 6 are asked alike, and 1 and 5 are of one subject
  RunControl control;
  control.memory = least_memory(*study.model, shapes, study.options);
  const auto results = study.run(control);
  CHECK(words(results)[5] == "traced");
  study.options.facts_per_sweep = 1;
  CHECK(batch_chunk(*study.model, shapes, study.options, control) == 1);
  study.options.facts_per_sweep = 3;
  control.memory = RunControl().memory;
  CHECK(batch_chunk(*study.model, shapes, study.options, control) == 24);
  study.options.engine = Engine::kPlain;
  CHECK(batch_chunk(*study.model, shapes, study.options, control) == 1);
}

}  // namespace
}  // namespace rometrace::batch_test
