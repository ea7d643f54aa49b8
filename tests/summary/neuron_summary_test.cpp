#include "rometrace/summary/neuron_summary.hpp"

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/report/summary_text.hpp"
#include "rometrace/summary/summary.hpp"
#include "summary/summary_lines.hpp"

namespace rometrace::neuron_summary_test {
namespace {

using namespace testing;

/// Ada plays and writes, Bo plays, Cy writes; each fact tells of two neurons.
SummaryResult example() {
  const TemporaryFolder folder;
  Summary summary({true, 100, 1});
  SummaryReader reader(folder
                           .write("a.jsonl", as_text({neuron_line(1, "plays", "Ada", {{3, 0.5}, {1, 0.1}}, 2),
                                                      neuron_line(2, "plays", "Bo", {{3, 0.3}, {2, 0.2}}, 4),
                                                      neuron_line(3, "writes", "Ada", {{1, 0.3}, {3, 0.1}}, nullptr),
                                                      neuron_line(4, "writes", "Cy", {{7, 0.1}, {6, 0.1}}, 6)}))
                           .string());
  SummaryLine line;
  while (reader.next(line)) summary.add(line);
  summary.end_file(reader);
  return summary.result();
}

const NeuronRoleSummary& last_subject_of(const GroupSummary& group) {
  return group.neurons->roles[static_cast<std::size_t>(Role::kLastSubject)];
}

}  // namespace

TEST_CASE("the neurons that most facts tell of come first, with their mean effect in these facts") {
  const auto result = example();
  const auto& role = last_subject_of(result.overall);
  CHECK(result.overall.neurons->candidates == 8);
  CHECK(role.facts == 4);
  CHECK(role.told == 2);
  CHECK(role.distinct == 5);
  REQUIRE(role.best.size() == 5);
  CHECK(role.best[0].neuron == 3);
  CHECK(role.best[0].facts == 3);
  CHECK(role.best[0].share == 0.75);
  CHECK(*role.best[0].effect.mean == doctest::Approx(0.3).epsilon(1e-12));
  CHECK(*role.best[0].effect.standard_error == doctest::Approx(0.2 / std::sqrt(3.0)).epsilon(1e-12));
  CHECK(role.best[0].effect.bootstrap);
  CHECK(role.best[0].promotes == " t3");
  CHECK(role.best[1].neuron == 1);
  CHECK(*role.best[1].effect.mean == doctest::Approx(0.2).epsilon(1e-12));
  CHECK(role.best[2].neuron == 2);
  CHECK_FALSE(role.best[2].effect.bootstrap);
  CHECK(role.best[3].neuron == 6);  // as many facts and as much effect as 7
}

TEST_CASE("pairs of facts share neurons by relation, by subject, or neither") {
  const auto result = example();
  const auto& all = last_subject_of(result.overall);
  // (1, 2) share 3, (3, 4) nothing; (1, 3) share both; (1, 4), (2, 3), (2, 4): 0, 1, 0.
  CHECK(all.same_relation.pairs == 2);
  CHECK(*all.same_relation.shared == 0.5);
  CHECK(*all.same_relation.share == 0.25);
  CHECK(all.same_subject.pairs == 1);
  CHECK(*all.same_subject.share == 1);
  CHECK(all.neither.pairs == 3);
  CHECK(*all.neither.share == doctest::Approx(1.0 / 6).epsilon(1e-12));
  CHECK(*all.neither.chance == 0.25);  // 2 of 8
  REQUIRE(result.relations.size() == 2);
  const auto& writes = last_subject_of(result.relations[1].second);
  CHECK(writes.same_relation.pairs == 1);
  CHECK(*writes.same_relation.share == 0);
  CHECK(writes.same_subject.pairs == 1);  // with a fact of the other relation
  CHECK(writes.neither.pairs == 3);
}

TEST_CASE("curves are means over facts, and halves leave out facts without one") {
  const auto result = example();
  const auto& role = last_subject_of(result.overall);
  CHECK(role.sizes == std::vector<std::int64_t>{1, 2, 8});
  REQUIRE(role.sets.effect.size() == 3);
  CHECK(role.sets.effect[2] == doctest::Approx(1).epsilon(1e-12));
  CHECK(role.change.effect[2] == doctest::Approx(0.5).epsilon(1e-12));
  CHECK(role.random.effect[0] == doctest::Approx(0.0625).epsilon(1e-12));
  CHECK(role.sets.bootstrap_low.size() == 3);
  CHECK(role.half.tokens == 4);
  CHECK(role.half.none == 1);
  CHECK(*role.half.share.mean == doctest::Approx(0.5).epsilon(1e-12));
  CHECK(*role.half.median == 0.5);
  CHECK(last_subject_of(result.relations[1].second).half.median == 0.75);
}

TEST_CASE("a summary of neurons alone says in words what they share") {
  const auto text = render_summary(example(), {80, false, false, true});
  CHECK(text == Contains("neurons: last subject token, 4 facts, those that most tell of\n"));
  CHECK(text == Contains("\n  0:3                3       75     30.00  ["));
  CHECK(text == Contains("\" t3\"\n"));
  CHECK(text == Contains("relation 25.00 %, of one subject 100.00 %, of neither 16.67 %; by chance\n"));
  CHECK(text == Contains("\n  25.00 %.\n"));
  CHECK(text == Contains("Half of what all bring back: 50.00 % of 8 neurons (median)"));
  CHECK(text == Contains("in 1 of 4 cases all bring back nothing."));
  CHECK(text == Contains("\n  plays                     2    50.00    16.67    37.50  0:3 (100 %)\n"));
}

}  // namespace rometrace::neuron_summary_test
