#include "rometrace/study/probe.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <stop_token>

#include "checks.hpp"
#include "closeness.hpp"
#include "random_model.hpp"
#include "rometrace/error.hpp"

namespace rometrace::probe_test {
namespace {

using testing::Closeness;
using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

const std::filesystem::path kDemo = std::filesystem::path(ROMETRACE_SOURCE_DIR) / "share/rometrace/demo";

const Tokenizer& demo_tokenizer() {
  static const auto tokenizer = Tokenizer::load(kDemo);
  return tokenizer;
}

Fact make_fact(const std::string& subject, std::optional<std::string> relation, std::optional<std::string> object,
               const std::vector<std::string>& prompts) {
  Fact fact;
  fact.subject = subject;
  fact.relation = std::move(relation);
  fact.object = std::move(object);
  for (const auto& prompt : prompts)
    fact.wordings.push_back({prompt, false, prompt.empty() ? ByteRange{} : find_subject(prompt, subject)});
  return fact;
}

/// Two relations, prompts of several lengths, an object of several tokens, a fact without a relation.
std::vector<Fact> some_facts() {
  return {
      make_fact("Miles Davis", "plays", "trumpet",
                {"Miles Davis plays the", "The instrument that Miles Davis plays is the"}),
      make_fact("Toulouse", "lies in", "France", {"Toulouse belongs to"}),
      make_fact("Glenn Gould", "plays", "piano",
                {"Glenn Gould plays the", "On the record, Glenn Gould is heard on the"}),
      make_fact("Nobody", "plays", "bassoon d'amore", {"Nobody plays the"}),
      make_fact("Berlin", std::nullopt, "Germany", {"Berlin belongs to", "The country of Berlin is"}),
  };
}

std::vector<const Fact*> pointers(const std::vector<Fact>& facts) {
  std::vector<const Fact*> result;
  for (const auto& fact : facts) result.push_back(&fact);
  return result;
}

ObjectChoices choices_of(const std::vector<Fact>& facts) {
  ObjectChoices choices(demo_tokenizer());
  for (const auto& fact : facts) choices.add(fact);
  return choices;
}

std::vector<ProbeResult> probe(const Decoder& model, const std::vector<Fact>& facts, const ProbeOptions& options = {}) {
  return probe_facts(model, demo_tokenizer(), choices_of(facts), pointers(facts), options);
}

/// A small model of the demo's vocabulary, each byte of its weights `byte`.
std::shared_ptr<const Decoder> model_filled_with(char byte) {
  std::mt19937 engine(1);
  const TemporaryFolder folder;
  write_random_model(folder, {.layers = 1, .vocab = demo_tokenizer().size()}, engine);
  std::ifstream file(folder.path() / "model.safetensors", std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto header = 8 + bytes.substr(8).find("}}") + 2;
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(header), bytes.end(), byte);
  folder.write("model.safetensors", bytes);
  return Decoder::load(folder.path());
}

ProbeResult probed(const std::vector<ProbedWording>& wordings) {
  ProbeResult result;
  result.wordings = wordings;
  return result;
}

ProbedWording wording(std::int64_t rank, std::int64_t choice_rank) {
  ProbedWording result;
  result.rank = rank;
  result.choice_rank = choice_rank;
  result.said = rank == 1;
  return result;
}

TEST_CASE("a rule of knowing is read and written back in full") {
  const auto full = [](const char* text) { return to_string(parse_known_rule(text)); };
  CHECK(full("said") == "said:2");
  CHECK(full("said:3") == "said:3");
  CHECK(full("choice") == "choice:2");
  CHECK(full("choice:1") == "choice:1");
  CHECK(full("recall:10") == "recall:10:1");
  CHECK(full("recall:10:4") == "recall:10:4");
  CHECK(to_string(KnownRule{}) == "said:2");
}

TEST_CASE("what is no rule of knowing is refused in one line that says what is one") {
  for (const char* text :
       {"", "known", "said:", "said:0", "said:-1", "said:2:3", "said:two", "said: 2", "Said:2", "recall",
        "recall:", "recall:0", "recall:5:0", "recall:5:2:1", "choice:1.5", "said:99999999999999999999", "said:2\n"}) {
    CAPTURE(text);
    const auto message = message_of<Error>([&] { parse_known_rule(text); });
    CHECK(message == Contains("expected said:K, choice:K, recall:R or recall:R:K"));
    CHECK(message.find('\n') == std::string::npos);
  }
}

TEST_CASE("an object's tokens are those of a space and the object") {
  const auto& tokenizer = demo_tokenizer();
  const auto ids = object_token_ids(tokenizer, "trumpet");
  REQUIRE(ids.size() == 1);
  CHECK(tokenizer.token_bytes(ids[0]) == " trumpet");
  CHECK(object_token_ids(tokenizer, "  trumpet\n") == ids);
  CHECK(tokenizer.decode(object_token_ids(tokenizer, "bassoon d'amore")) == " bassoon d'amore");
  CHECK(object_token_ids(tokenizer, " \t").empty());
  CHECK_THROWS_AS(object_token_ids(tokenizer, "\xFF"), Error);
}

TEST_CASE("probabilities, ranks and answers are those of each prompt's softmax, sorted") {
  const at::NoGradGuard no_grad;
  const auto model = Decoder::load(kDemo, at::kDouble);
  const auto facts = some_facts();
  const auto choices = choices_of(facts);
  const auto results = probe(*model, facts);
  REQUIRE(results.size() == facts.size());
  Closeness closeness({1e-10, 1e-14});  // float64: only the order of additions differs
  for (std::size_t i = 0; i < facts.size(); ++i) {
    REQUIRE(results[i].status == ProbeResult::Status::kProbed);
    REQUIRE(results[i].wordings.size() == facts[i].wordings.size());
    const auto object = demo_tokenizer().encode(" " + *facts[i].object).front().id;
    CHECK(results[i].object_id == object);
    for (std::size_t w = 0; w < facts[i].wordings.size(); ++w) {
      const auto& prompt = facts[i].wordings[w].prompt;
      CAPTURE(prompt);
      std::vector<std::int32_t> ids;
      for (const auto& token : demo_tokenizer().encode(prompt)) ids.push_back(token.id);
      const auto p = at::softmax(model->logits(model->forward(ids, 1)[0][-1]), -1).contiguous();
      const auto* begin = p.data_ptr<double>();
      const auto& found = results[i].wordings[w];
      std::vector<std::int32_t> order(static_cast<std::size_t>(p.numel()));
      for (std::size_t v = 0; v < order.size(); ++v) order[v] = static_cast<std::int32_t>(v);
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return begin[a] > begin[b]; });
      closeness.compare(prompt, found.probability, begin[object]);
      closeness.compare(prompt + ", answer", found.answer_probability, begin[order[0]]);
      CHECK(found.answer_id == order[0]);
      CHECK(found.answer == demo_tokenizer().token_bytes(order[0]));
      CHECK(found.rank == std::find(order.begin(), order.end(), object) - order.begin() + 1);
      const auto& candidates = choices.of(facts[i]);
      std::erase_if(order, [&](auto id) { return !candidates.contains(id); });
      CHECK(found.choice_rank == std::find(order.begin(), order.end(), object) - order.begin() + 1);
      CHECK(found.said == (found.rank == 1));
    }
  }
  closeness.check();
  CHECK(results[0].said());
  CHECK(results[0].wordings[0].probability == doctest::Approx(0.603).epsilon(1e-3));  // the demo model's card
  CHECK(results[3].object_tokens > 1);
}

TEST_CASE("a fact's result does not depend on its neighbours, chunks and batches") {
  const auto model = Decoder::load(kDemo, at::kDouble);
  const auto facts = some_facts();
  const auto expected = probe(*model, facts);
  const auto compare = [&](const std::vector<ProbeResult>& results) {
    REQUIRE(results.size() == facts.size());
    Closeness closeness({1e-10, 1e-14});
    for (std::size_t i = 0; i < facts.size(); ++i) {
      CHECK(results[i].object_id == expected[i].object_id);
      REQUIRE(results[i].wordings.size() == expected[i].wordings.size());
      for (std::size_t w = 0; w < results[i].wordings.size(); ++w) {
        closeness.compare("probability", results[i].wordings[w].probability, expected[i].wordings[w].probability);
        CHECK(results[i].wordings[w].rank == expected[i].wordings[w].rank);
        CHECK(results[i].wordings[w].choice_rank == expected[i].wordings[w].choice_rank);
      }
    }
    closeness.check();
  };
  compare(probe(*model, facts, {.chunk_facts = 1}));
  compare(probe(*model, facts, {.chunk_facts = 2}));
  compare(probe(*model, facts, {.batch_tokens = 1}));
  compare(probe(*model, facts, {.batch_tokens = 12, .chunk_facts = 3}));
}

TEST_CASE("several models probe what one does, to the last bit and in the same order") {
  const auto threads = at::get_num_threads();
  at::set_num_threads(1);  // as each of several models has
  const auto facts = some_facts();
  for (const std::int64_t chunk : {1, 2, 256}) {
    for (const std::int64_t batch : {12, 2048}) {
      const ProbeOptions options{.batch_tokens = batch, .chunk_facts = chunk};
      const auto alone = probe(*Decoder::load(kDemo), facts, options);
      for (const std::size_t count : {1, 2, 4}) {
        const auto models = Replicas::load(kDemo, {}, std::vector<at::Device>(count, at::Device(at::kCPU)));
        RunControl control;
        std::int64_t last = 0;
        control.progress = [&](std::int64_t done, std::int64_t total) {
          CHECK(done >= last);
          CHECK(total == 8);
          last = done;
        };
        std::vector<ProbeResult> shared;
        probe_facts(models, demo_tokenizer(), choices_of(facts), pointers(facts), options, control,
                    [&](std::size_t index, ProbeResult&& result) {
                      CHECK(index == shared.size());
                      shared.push_back(std::move(result));
                    });
        CHECK(last == 8);
        REQUIRE(shared.size() == facts.size());
        for (std::size_t i = 0; i < facts.size(); ++i) {
          REQUIRE(shared[i].wordings.size() == alone[i].wordings.size());
          for (std::size_t w = 0; w < shared[i].wordings.size(); ++w) {
            CHECK(shared[i].wordings[w].probability == alone[i].wordings[w].probability);
            CHECK(shared[i].wordings[w].rank == alone[i].wordings[w].rank);
            CHECK(shared[i].wordings[w].answer_id == alone[i].wordings[w].answer_id);
          }
        }
      }
    }
  }
  at::set_num_threads(threads);
}

TEST_CASE("facts of few wordings are probed more together, but not fewer than 64, nor more than a chunk") {
  const auto model = Decoder::load(kDemo);
  const auto chunk_of = [&](std::size_t wordings) {
    auto facts = some_facts();
    for (auto& fact : facts) fact.wordings.assign(wordings, fact.wordings.front());
    return probe_chunk(*model, pointers(facts));
  };
  CHECK(chunk_of(1) == ProbeOptions().chunk_facts);
  CHECK(chunk_of(100'000) == 64);
  const auto some = chunk_of(400);  // 20 operations of each parameter for each, 2e12 together
  CHECK(some == static_cast<std::int64_t>(2e12 / (20.0 * 400 * static_cast<double>(model->parameter_count()))));
  CHECK(probe_chunk(*model, {}) == 64);
}

TEST_CASE("candidates are the relation's objects in all facts added, each counted by its first token") {
  const auto model = Decoder::load(kDemo);
  auto facts = some_facts();
  facts.push_back(make_fact("A", "plays", "trumpet", {"A plays the"}));
  facts.push_back(make_fact("B", "plays", "trumpet mouthpiece", {"B plays the"}));
  facts.push_back(make_fact("C", "plays", std::nullopt, {"C plays the"}));
  const std::vector<const Fact*> first = {&facts[0]};
  const auto results = probe_facts(*model, demo_tokenizer(), choices_of(facts), first);
  CHECK(results[0].candidates == 3);  // trumpet, piano, bassoon d'amore
  CHECK(results[0].alike == 1);       // trumpet mouthpiece
  const auto all = probe(*model, facts);
  CHECK(all[1].candidates == 1);
  CHECK(all[1].wordings[0].choice_rank == 1);
  CHECK(all[4].candidates == 5);  // without a relation: the objects of all facts

  // Nothing was added: the fact's own object is the one candidate.
  const auto alone = probe_facts(*model, demo_tokenizer(), ObjectChoices(demo_tokenizer()), first);
  CHECK(alone[0].candidates == 1);
  CHECK(alone[0].alike == 0);
  CHECK(alone[0].wordings[0].choice_rank == 1);
}

TEST_CASE("among equally probable tokens the smaller id goes first") {
  const auto model = model_filled_with(0);
  const auto facts = some_facts();
  const auto results = probe(*model, facts);
  const auto choices = choices_of(facts);
  for (std::size_t i = 0; i < facts.size(); ++i) {
    const auto& candidates = choices.of(facts[i]);
    const auto before = std::distance(candidates.begin(), candidates.find(results[i].object_id));
    for (const auto& found : results[i].wordings) {
      CHECK(found.rank == results[i].object_id + 1);
      CHECK(found.choice_rank == before + 1);
      CHECK(found.answer_id == 0);
      CHECK_FALSE(found.said);
      CHECK(found.probability == doctest::Approx(1.0 / demo_tokenizer().size()));
    }
  }
}

TEST_CASE("an answer that is the object once stripped says it, whatever its token") {
  const auto model = model_filled_with(0);  // says <|endoftext|>, token 0
  const auto result = probe(*model, {make_fact("A", "b", "<|endoftext|>", {"A b"})}).front();
  REQUIRE(result.status == ProbeResult::Status::kProbed);
  CHECK(result.object_tokens > 1);
  CHECK(result.wordings[0].rank > 1);
  CHECK(result.wordings[0].said);
}

TEST_CASE("what is wrong with a fact is in its result, and the others are probed") {
  const auto model = Decoder::load(kDemo);
  std::string long_prompt = "Miles Davis";
  for (int i = 0; i < 100; ++i) long_prompt += " plays";
  std::vector<Fact> facts = some_facts();
  facts.insert(facts.begin(), make_fact("Miles Davis", "plays", std::nullopt, {"Miles Davis plays the"}));
  facts.insert(facts.begin() + 2, make_fact("Miles Davis", "plays", "trumpet", {"Miles Davis plays the", long_prompt}));
  facts.push_back(make_fact("A", "plays", "trumpet", {"A plays \xFF the"}));
  facts.push_back(make_fact("A", "plays", "\xC3", {"A plays the"}));
  facts.push_back(make_fact("A", "plays", "  ", {"A plays the"}));
  facts.push_back(make_fact("", "plays", "trumpet", {""}));
  const auto results = probe(*model, facts);
  REQUIRE(results.size() == 11);

  using Status = ProbeResult::Status;
  const auto check = [&](std::size_t index, Status status, const char* cause, const char* reason) {
    CAPTURE(index);
    CHECK(static_cast<int>(results[index].status) == static_cast<int>(status));
    CHECK(results[index].cause == cause);
    CHECK(results[index].reason == Contains(reason));
    CHECK(results[index].reason.find('\n') == std::string::npos);
    CHECK(results[index].wordings.empty());
    CHECK_FALSE(is_known(results[index], KnownRule{}));
  };
  check(0, Status::kSkipped, "no_object", "no object");
  check(2, Status::kFailed, "prompt", "wording 2, \"Miles Davis plays plays");
  CHECK(results[2].reason == Contains("tokens; this model takes 1 to 64"));
  check(7, Status::kFailed, "prompt", "wording 1, \"A plays \\xff the\": ");
  check(8, Status::kFailed, "record", "object \"\\xc3\": ");
  check(9, Status::kSkipped, "no_object", "no object");
  check(10, Status::kFailed, "prompt", "has 0 tokens");
  for (const std::size_t index : {1, 3, 4, 5, 6}) {
    CHECK(static_cast<int>(results[index].status) == static_cast<int>(Status::kProbed));
  }
  CHECK(results[1].said());
}

TEST_CASE("a model whose output is not a number fails the fact") {
  const auto results = probe(*model_filled_with('\xFF'), some_facts());
  for (const auto& result : results) {
    CHECK(static_cast<int>(result.status) == static_cast<int>(ProbeResult::Status::kFailed));
    CHECK(result.cause == "trace");
    CHECK(result.reason == Contains("NaN or infinite"));
    CHECK(result.wordings.empty());
  }
}

TEST_CASE("a tokeniser of more tokens than the model has fails facts, not the run") {
  std::mt19937 engine(1);
  const TemporaryFolder folder;
  write_random_model(folder, {.layers = 1, .vocab = 300}, engine);
  const auto results = probe(*Decoder::load(folder.path()), some_facts());
  for (const auto& result : results) {
    CHECK(static_cast<int>(result.status) == static_cast<int>(ProbeResult::Status::kFailed));
    CHECK(result.reason == Contains("outside the model's vocabulary of 300"));
  }
}

TEST_CASE("results come in order, a chunk at a time, and progress ends with all wordings") {
  const auto model = Decoder::load(kDemo);
  auto facts = some_facts();
  facts[1].object.reset();
  std::vector<std::int64_t> done;
  std::vector<std::size_t> seen;
  RunControl control;
  control.progress = [&](std::int64_t wordings, std::int64_t total) {
    CHECK(total == 8);
    done.push_back(wordings);
  };
  probe_facts(*model, demo_tokenizer(), choices_of(facts), pointers(facts), {.chunk_facts = 2}, control,
              [&](std::size_t index, ProbeResult&&) { seen.push_back(index); });
  CHECK(seen == std::vector<std::size_t>{0, 1, 2, 3, 4});
  REQUIRE_FALSE(done.empty());
  CHECK(std::is_sorted(done.begin(), done.end()));
  CHECK(done.back() == 8);
}

TEST_CASE("probing stops when asked, with the finished chunks handed on") {
  const auto model = Decoder::load(kDemo);
  const auto facts = some_facts();
  std::stop_source source;
  RunControl control;
  control.stop = source.get_token();
  std::size_t results = 0;
  const auto stop_at_second = [&](std::size_t index, ProbeResult&&) {
    ++results;
    if (index == 1) source.request_stop();
  };
  CHECK_THROWS_AS(probe_facts(*model, demo_tokenizer(), choices_of(facts), pointers(facts), {.chunk_facts = 2}, control,
                              stop_at_second),
                  Interrupted);
  CHECK(results == 2);
}

TEST_CASE("known by a rule: enough wordings bring the object out") {
  const auto result = probed({wording(1, 1), wording(2, 1), wording(7, 3)});
  const auto known = [&](const char* rule) { return is_known(result, parse_known_rule(rule)); };
  CHECK(known("said:1"));
  CHECK_FALSE(known("said:2"));
  CHECK(known("choice:2"));
  CHECK_FALSE(known("choice:3"));
  CHECK(known("recall:2:2"));
  CHECK_FALSE(known("recall:2:3"));
  CHECK(known("recall:7:3"));
  CHECK(result.said());
  CHECK(result.said_in() == 1);
  CHECK(result.choice_in() == 2);
  CHECK(result.best_rank() == 1);
}

TEST_CASE("a fact of fewer wordings than the rule asks for is not known, and the reason says so") {
  const auto result = probed({wording(1, 1)});
  const auto rule = parse_known_rule("said:2");
  CHECK_FALSE(has_enough_wordings(result, rule));
  CHECK_FALSE(is_known(result, rule));
  CHECK(reason_not_known(result, rule) ==
        "it has 1 wording, fewer than the rule asks for (said:2: the top answer in at least 2 wordings)");
  CHECK(reason_not_known(probed({wording(1, 1), wording(3, 2)}), rule) ==
        "the object comes out in 1 of 2 wordings (said:2: the top answer in at least 2 wordings)");
  ProbeResult failed;
  failed.status = ProbeResult::Status::kFailed;
  failed.reason = "why";
  CHECK(reason_not_known(failed, rule) == "it could not be probed: why");
}

}  // namespace
}  // namespace rometrace::probe_test
