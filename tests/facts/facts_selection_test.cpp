#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "checks.hpp"
#include "facts/facts_checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/facts/facts.hpp"

namespace rometrace::facts_selection_test {
namespace {

using testing::Contains;
using testing::message_of;
using testing::read_text_as_facts;
using Indices = std::vector<std::size_t>;

/// Facts with the ids 0, 1, ...; the fourth is bad.
Facts numbered(int count) {
  std::string text = "id,subject,prompt\n";
  for (int i = 0; i < count; ++i) text += std::to_string(i) + ",A," + (i == 3 ? "B" : "A") + " is\n";
  return read_text_as_facts(text);
}

Indices sample_of(const Facts& facts, std::int64_t sample, std::uint32_t seed) {
  Selection selection;
  selection.sample = sample;
  selection.sample_seed = seed;
  return select(facts, selection);
}

TEST_CASE("without a choice every record is selected, good or bad") {
  CHECK(select(numbered(5), {}) == Indices{0, 1, 2, 3, 4});
}

TEST_CASE("ids select in the order of the file") {
  const Facts facts = read_text_as_facts(R"([{"id": 16, "subject": "A", "prompt": "A is"},
    {"id": "x", "subject": "", "prompt": "A is"}, {"subject": "Bo", "prompt": "Bo is"}, {"id": "16", "subject": "C"}])");
  Selection selection;
  selection.ids = {"fact/bo", "16", "x"};
  CHECK(select(facts, selection) == Indices{0, 1, 2, 3});  // the last one repeats an id, and will say so
  selection.ids = {"x", "x"};
  CHECK(select(facts, selection) == Indices{1});
}

TEST_CASE("an id that no record has is named") {
  Selection selection;
  selection.ids = {"1", "17", "18"};
  const std::string message = message_of<Error>([&] { select(numbered(5), selection); });
  CHECK(message == "no record of facts has the id \"17\"");
}

TEST_CASE("a sample is what NumPy's RandomState gives by Fisher-Yates") {
  // r = numpy.random.RandomState(seed); p = list(range(20)); for i in range(n): j = i + int(r.random_sample() * (20 -
  // i)); p[i], p[j] = p[j], p[i]; sorted(p[:n])
  const Facts facts = numbered(20);
  CHECK(sample_of(facts, 5, 1) == Indices{0, 2, 6, 8, 14});
  CHECK(sample_of(facts, 5, 2) == Indices{1, 3, 8, 10, 11});
  CHECK(sample_of(facts, 19, 1) == Indices{0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
}

TEST_CASE("a sample has no repeats and a larger one holds the smaller") {
  const Facts facts = numbered(50);
  Indices smaller;
  for (std::int64_t count = 1; count <= 50; ++count) {
    const Indices larger = sample_of(facts, count, 7);
    CHECK(larger.size() == static_cast<std::size_t>(count));
    CHECK(std::adjacent_find(larger.begin(), larger.end(), std::greater_equal<>()) == larger.end());
    CHECK(std::includes(larger.begin(), larger.end(), smaller.begin(), smaller.end()));
    smaller = larger;
  }
}

TEST_CASE("a sample as large as what there is or larger is all of it") {
  const Facts facts = numbered(6);
  CHECK(sample_of(facts, 6, 1) == Indices{0, 1, 2, 3, 4, 5});
  CHECK(sample_of(facts, 1'000'000'000'000, 1).size() == 6);
}

TEST_CASE("the ids are chosen first, then the sample, then the limit") {
  const Facts facts = numbered(30);
  Selection selection;
  for (int i = 10; i < 30; ++i) selection.ids.push_back(std::to_string(i));
  selection.sample = 5;
  const Indices sample = select(facts, selection);
  Indices expected = sample_of(numbered(20), 5, 1);
  for (std::size_t& index : expected) index += 10;
  CHECK(sample == expected);
  selection.limit = 2;
  CHECK(select(facts, selection) == Indices{sample[0], sample[1]});
  selection.limit = 100;
  CHECK(select(facts, selection) == sample);
}

TEST_CASE("a sample or limit below one is refused") {
  Selection selection;
  selection.limit = 0;
  CHECK(message_of<Error>([&] { select(numbered(3), selection); }) == "limit is 0; expected 1 or more");
  selection.limit.reset();
  selection.sample = -1;
  CHECK(message_of<Error>([&] { select(numbered(3), selection); }) == "sample is -1; expected 1 or more");
}

}  // namespace
}  // namespace rometrace::facts_selection_test
