#include "rometrace/facts/swap.hpp"

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "checks.hpp"
#include "facts/facts_checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "text/tokenizer_goldens.hpp"

namespace rometrace::swap_test {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::fact_at;

const Tokenizer& tokenizer() {
  static const Tokenizer loaded = Tokenizer::load(testing::source_path("share/rometrace/demo"));
  return loaded;
}

const Facts& shipped_facts() {
  static const std::vector<std::filesystem::path> files{testing::source_path("share/rometrace/facts.json")};
  static const Facts facts = read_facts(files);
  return facts;
}

std::string reason_of(const std::variant<Swap, NoSwap>& result) {
  const auto* none = std::get_if<NoSwap>(&result);
  if (none == nullptr) return "(a partner)";
  CHECK(testing::is_one_line(none->reason));
  return none->reason;
}

/// The partner's record number; 0 without one.
std::int64_t partner_record(const SwapPartners& partners, const Fact& fact) {
  const auto result = partners.partner_of(fact);
  const auto* swap = std::get_if<Swap>(&result);
  return swap == nullptr ? 0 : swap->partner->record;
}

bool fits(const Fact& fact, const Fact& other) {
  if (!other.object || other.relation != fact.relation) return false;
  if (other.subject == fact.subject || other.object == fact.object) return false;
  try {
    counter_prompt_of_subject(tokenizer(), fact.wordings.front().prompt, fact.wordings.front().subject, other.subject);
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// Every candidate tried for every fact: a partner is one of those that fit, and is there whenever one does.
void check_against_all_pairs(const Facts& facts, std::size_t every) {
  const SwapPartners partners(facts, tokenizer());
  std::size_t found = 0;
  for (std::size_t i = 0; i < facts.records.size(); i += every) {
    const auto& fact = fact_at(facts, i);
    CAPTURE(fact.where);
    bool any = false;
    for (std::size_t j = 0; j < facts.records.size() && !any; ++j) any = fits(fact, fact_at(facts, j));
    const auto result = partners.partner_of(fact);
    const auto* swap = std::get_if<Swap>(&result);
    CHECK((swap != nullptr) == any);
    if (swap == nullptr) continue;
    ++found;
    CHECK(fits(fact, *swap->partner));
    const auto expected = counter_prompt_of_subject(tokenizer(), fact.wordings.front().prompt,
                                                    fact.wordings.front().subject, swap->partner->subject);
    CHECK(swap->counter.prompt == expected.prompt);
    CHECK(swap->counter.subject == swap->partner->subject);
    CHECK(swap->counter.token_ids == expected.token_ids);
  }
  CHECK(found > 0);
}

TEST_CASE("a partner fits, and is found wherever one of all pairs does: shipped facts") {
  check_against_all_pairs(shipped_facts(), 7);
}

TEST_CASE("a partner fits, and is found wherever one of all pairs does: subjects within words and punctuation") {
  std::mt19937 engine(1);
  const std::vector<std::string> prompts = {
      "{} plays the", "The \"{}\" is in", "un{}ness", "{}'s  music", "by {}, a", "({}) ", "{}", "see  {}s"};
  const std::vector<std::string> parts = {"Miles", " Davis", "a", "é", "  ", "42", "'s", "-", "Louis", " Arm", "X"};
  json records = json::array();
  for (int i = 0; i < 300; ++i) {
    std::string subject;
    for (auto left = 1 + engine() % 4; left > 0; --left) subject += parts[engine() % parts.size()];
    if (subject.find_first_not_of(' ') == std::string::npos) subject += "X";
    records.push_back({{"subject", subject},
                       {"relation", "r" + std::to_string(engine() % 3)},
                       {"object", std::string(1, static_cast<char>('a' + engine() % 3))},
                       {"prompt", prompts[engine() % prompts.size()]}});
  }
  check_against_all_pairs(testing::read_text_as_facts(records.dump()), 1);
}

TEST_CASE("the draw depends on seed, record and facts alone, not on the order of calls or on threads") {
  const auto& facts = shipped_facts();
  const SwapPartners forwards(facts, tokenizer()), backwards(facts, tokenizer()), together(facts, tokenizer());
  const auto size = facts.records.size();
  std::vector<std::int64_t> expected(size), found(size), at_once(size);
  for (std::size_t i = 0; i < size; ++i) expected[i] = partner_record(forwards, fact_at(facts, i));
  for (std::size_t i = size; i-- > 0;) found[i] = partner_record(backwards, fact_at(facts, i));
  CHECK(found == expected);
  {
    std::vector<std::jthread> threads;
    for (std::size_t first = 0; first < 3; ++first) {
      threads.emplace_back([&, first] {
        for (std::size_t i = first; i < size; i += 3) {
          at_once[i] = partner_record(together, std::get<Fact>(facts.records[i]));
        }
      });
    }
  }
  CHECK(at_once == expected);
  const Fact copy = fact_at(facts, 3);
  CHECK(partner_record(SwapPartners(facts, tokenizer()), copy) == expected[3]);
  const SwapPartners other_seed(facts, tokenizer(), {2});
  std::size_t different = 0;
  for (std::size_t i = 0; i < size; ++i) different += partner_record(other_seed, fact_at(facts, i)) != expected[i];
  CHECK(different > size / 2);
}

/// Facts of one relation and one prompt, with these subjects and objects.
Facts facts_of(const std::vector<std::pair<std::string, std::string>>& pairs) {
  json records = json::array();
  for (const auto& [subject, object] : pairs) {
    records.push_back({{"subject", subject}, {"relation", "plays"}, {"object", object}, {"prompt", "{} plays the"}});
  }
  return testing::read_text_as_facts(records.dump());
}

TEST_CASE("all candidates are drawn about equally often, none but candidates, and as the header says") {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (int i = 0; i < 400; ++i) pairs.emplace_back("A", "x");  // the facts that are asked for
  // Single bytes are single tokens. The same subject and the same object never come; the order is that of the objects.
  for (const auto& pair : std::vector<std::pair<std::string, std::string>>{
           {"D", "y"}, {"A", "z"}, {"B", "w"}, {"C", "x"}, {"E", "z"}, {"F", "y"}}) {
    pairs.push_back(pair);
  }
  const auto facts = facts_of(pairs);
  const SwapPartners partners(facts, tokenizer(), {9});
  const std::vector<std::string> candidates = {"B", "D", "F", "A", "E"};  // by object, then file; "A" is passed over
  std::map<std::string, int> drawn;
  for (std::size_t i = 0; i < 400; ++i) {
    const auto& fact = fact_at(facts, i);
    std::seed_seq sequence{9U, static_cast<unsigned>(fact.record), 0U};
    std::mt19937 engine(sequence);
    auto order = candidates;
    std::size_t step = 0;
    for (;; ++step) {
      const std::uint64_t u = engine();
      std::swap(order[step], order[step + (u * (order.size() - step) >> 32U)]);
      if (order[step] != "A") break;
    }
    const auto result = partners.partner_of(fact);
    REQUIRE(std::holds_alternative<Swap>(result));
    CHECK(std::get<Swap>(result).partner->subject == order[step]);
    ++drawn[order[step]];
  }
  REQUIRE(drawn.size() == 4);
  for (const auto& [subject, count] : drawn) CHECK(count > 60);  // expected 100, standard deviation 8.7
}

TEST_CASE("a fact without a partner is told why") {
  const auto& text = tokenizer();
  const auto reason = [&](const Facts& facts, std::size_t index = 0) {
    return reason_of(SwapPartners(facts, text).partner_of(fact_at(facts, index)));
  };
  CHECK(reason(facts_of({{"A", "x"}})) == "no other fact of the relation \"plays\" has an object");
  const std::string none =
      "other facts of the relation \"plays\", none has another object and another subject of 1 token in this "
      "prompt";
  CHECK(reason(facts_of({{"A", "x"}, {"B", "x"}, {"C", "x"}})) == Contains("of the 2 " + none));
  CHECK(reason(facts_of({{"A", "x"}, {"A", "y"}, {"A", "z"}})) == Contains("of the 2 " + none));
  CHECK(reason(facts_of({{"A", "x"}, {"A", "y"}, {"B", "x"}})) == Contains("of the 2 " + none));
  CHECK(reason(facts_of({{"A", "x"}, {"A B C", "y"}})) == Contains("of the 1 other fact of the relation"));
  CHECK(reason(facts_of({{"A B C", "x"}, {"A", "y"}})) == Contains("another subject of 3 tokens in this prompt"));
  CHECK(reason(facts_of({{"A", "x"}, {"A", "y"}, {"B", "z"}})) == "(a partner)");

  const auto plain = testing::read_text_as_facts(R"([{"subject": "A", "object": "x", "prompt": "{} is"},
    {"subject": "A", "relation": "r", "prompt": "{} is"},
    {"subject": "B", "relation": "r", "object": "y", "prompt": "{} is"},
    {"subject": "C", "relation": "q", "object": "z", "prompt": "{} is"}])");
  CHECK(reason(plain, 0) == Contains("names no relation"));
  CHECK(reason(plain, 1) == Contains("has no object"));
  CHECK(reason(plain, 2) == Contains("no other fact of the relation \"r\" has an object"));
}

// The whole takes about a second; a search through all pairs would take hours.
TEST_CASE("twenty thousand facts of one relation have their partners soon, whether there is one or not") {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (int i = 0; i < 20'000; ++i) {
    // Nearly all have one object; a few subjects have a length of their own.
    std::string subject = std::to_string(i);
    for (int more = i < 100 ? i : 0; more > 0; --more) subject += " x";
    pairs.emplace_back(subject, i % 5000 == 4999 ? "rare" : "common");
  }
  const auto facts = facts_of(pairs);
  const SwapPartners partners(facts, tokenizer());
  const auto begin = std::chrono::steady_clock::now();
  std::size_t found = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) found += partner_record(partners, fact_at(facts, i)) != 0;
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::minutes(1));
  CHECK(found > 10'000);
  CHECK(found < 20'000);
}

}  // namespace
}  // namespace rometrace::swap_test
