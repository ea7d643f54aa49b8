#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "absent_files.hpp"
#include "checks.hpp"
#include "facts/facts_checks.hpp"
#include "files.hpp"
#include "rometrace/facts/facts.hpp"

namespace rometrace::edit_facts_test {
namespace {

using testing::bad_at;
using testing::Contains;
using testing::count_bad;
using testing::fact_at;
using testing::prompts_of;
using testing::TemporaryFolder;
using Texts = std::vector<std::string>;

const std::filesystem::path kShared = ROMETRACE_SOURCE_DIR "/../shared/facts";

Facts read(std::string_view content) {
  const TemporaryFolder folder;
  const std::vector<std::filesystem::path> files{folder.write("facts", content)};
  return read_edit_facts(files);
}

constexpr const char* kOriginal = R"([{"case_id": 7, "requested_rewrite": {"prompt": "{} plays the",
  "relation_id": "P1303", "target_new": {"str": "piano", "id": "Q5994"}, "target_true": {"str": "trumpet"},
  "subject": "Miles Davis"},
  "paraphrase_prompts": ["He came late. Miles Davis plays", "They hear him play the"],
  "neighborhood_prompts": ["Chet Baker plays the", "Dizzy Gillespie plays the"],
  "attribute_prompts": ["Bill Evans plays the"], "generation_prompts": ["Miles Davis was"]}])";

TEST_CASE(
    "CounterFact's original layout gives the new target and its own lists, whether they hold the subject or not") {
  const auto facts = read(kOriginal);
  const auto& fact = fact_at(facts, 0);
  CHECK(fact.object == "trumpet");
  CHECK(fact.new_object == "piano");
  CHECK(fact.paraphrases == Texts{"He came late. Miles Davis plays", "They hear him play the"});
  CHECK(fact.neighbours == Texts{"Chet Baker plays the", "Dizzy Gillespie plays the"});
  CHECK(prompts_of(fact) == Texts{"Miles Davis plays the", "He came late. Miles Davis plays"});
}

TEST_CASE("the flat layout's texts are lists of one, in JSON and in CSV") {
  const auto json = read(R"([{"case_id": 1, "prompt": "Miles Davis plays the", "subject": "Miles Davis",
    "ground_truth": "trumpet", "target_new": "piano", "rephrase_prompt": "Davis is a master of the",
    "locality_prompt": "Chet Baker plays the", "locality_ground_truth": "trumpet"}])");
  const auto csv = read(
      "case_id,prompt,subject,ground_truth,target_new,rephrase_prompt,locality_prompt\n"
      "1,Miles Davis plays the,Miles Davis,trumpet,piano,Davis is a master of the,Chet Baker plays the\n"
      "2,Miles Davis plays the,Miles Davis,trumpet,,,\n");
  for (const auto* facts : {&json, &csv}) {
    const auto& fact = fact_at(*facts, 0);
    CHECK(fact.new_object == "piano");
    CHECK(fact.paraphrases == Texts{"Davis is a master of the"});
    CHECK(fact.neighbours == Texts{"Chet Baker plays the"});
  }
  CHECK(!fact_at(csv, 1).new_object);
  CHECK(fact_at(csv, 1).paraphrases.empty());
  CHECK(fact_at(csv, 1).neighbours.empty());
}

TEST_CASE("our own facts have object_new, paraphrases and neighbours, beside the wordings of their relation") {
  const auto facts = read(R"({"relations": {"plays": ["{} plays the", "The instrument of {} is the"]}, "facts": [
    {"subject": "Miles Davis", "relation": "plays", "object": "trumpet", "object_new": " piano ",
     "paraphrases": ["A concert by {} on the", "Some hear him on the"], "neighbours": ["Chet Baker plays the"]},
    {"subject": "Chet Baker", "relation": "plays", "object": "trumpet"}]})");
  const auto& fact = fact_at(facts, 0);
  CHECK(fact.new_object == "piano");
  CHECK(fact.paraphrases == Texts{"A concert by Miles Davis on the", "Some hear him on the"});
  CHECK(fact.neighbours == Texts{"Chet Baker plays the"});
  CHECK(prompts_of(fact) == Texts{"Miles Davis plays the", "The instrument of Miles Davis is the"});
  CHECK(!fact_at(facts, 1).new_object);
}

TEST_CASE("what is no text, no list of texts, or no new object makes a bad record of an edit and none of a trace") {
  struct Case {
    std::string field, message;
  };
  const std::vector<Case> cases = {
      {R"("object_new": 5)", "object_new is 5; expected a string"},
      {R"("object_new": "  ")", "object_new is empty"},
      {R"("target_new": {"id": "Q1"})", "target_new has no \"str\""},
      {R"("object_new": "trumpet")", "the new object \"trumpet\" is the old one"},
      {R"("paraphrases": [1])", "paraphrases is 1; expected a string"},
      {R"("paraphrases": {"a": "b"})", "paraphrases is {\"a\":\"b\"}; expected a string"},
      {R"("neighbours": ["{} and {}"])", "neighbours \"{} and {}\" has {} 2 times"},
      {R"("neighborhood_prompts": [" "])", "neighborhood_prompts is empty"},
  };
  for (const auto& [field, message] : cases) {
    CAPTURE(field);
    const auto text = R"([{"subject": "Miles", "prompt": "{} plays the", "object": "trumpet", )" + field + "}]";
    const auto facts = read(text);
    CHECK(bad_at(facts, 0).message == Contains("facts, record 1: " + message));
    CHECK(count_bad(testing::read_text_as_facts(text)) == 0);
  }
}

TEST_CASE("a trace keeps nothing of what only edits need") {
  const auto facts = testing::read_text_as_facts(kOriginal);
  const auto& fact = fact_at(facts, 0);
  CHECK(!fact.new_object);
  CHECK(fact.paraphrases.empty());
  CHECK(fact.neighbours.empty());
}

TEST_CASE("each of a thousand edits of CounterFact has what its evaluation needs") {
  if (testing::is_absent(kShared)) return;
  const std::vector<std::filesystem::path> files{kShared / "counterfact-edit-1k.json"};
  const auto facts = read_edit_facts(files);
  REQUIRE(facts.records.size() == 1000);
  std::set<std::string> new_objects;
  for (std::size_t i = 0; i < facts.records.size(); ++i) {
    const auto& fact = fact_at(facts, i);
    REQUIRE(fact.object);
    REQUIRE(fact.new_object);
    CHECK(fact.new_object != fact.object);
    CHECK(fact.paraphrases.size() == 1);
    CHECK(fact.neighbours.size() == 1);
    new_objects.insert(*fact.new_object);
  }
  CHECK(fact_at(facts, 0).new_object == "baseball");
  CHECK(new_objects.size() > 100);
}

}  // namespace
}  // namespace rometrace::edit_facts_test
