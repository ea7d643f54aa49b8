#include "rometrace/summary/cluster_means.hpp"

#include <cmath>
#include <random>

#include "checks.hpp"

namespace rometrace::cluster_means_test {
namespace {

struct Fact {
  double count;
  std::vector<double> sums;
};

std::vector<Fact> random_facts(std::size_t facts, std::size_t values, double offset) {
  std::mt19937 engine(7);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<Fact> result(facts);
  for (auto& fact : result) {
    fact.count = static_cast<double>(1 + engine() % 4);
    for (std::size_t v = 0; v < values; ++v) fact.sums.push_back(fact.count * (offset + uniform(engine)));
  }
  return result;
}

}  // namespace

TEST_CASE("means and errors are those of the ratio estimator computed in two passes") {
  for (const double offset : {0.0, 0.3, 1e6}) {
    const auto facts = random_facts(37, 3, offset);
    ClusterMeans means(3, 0);
    double count = 0;
    for (const auto& fact : facts) {
      means.add(fact.count, fact.sums, {});
      count += fact.count;
    }
    CHECK(means.facts() == 37);
    CHECK(means.count() == count);
    for (std::size_t v = 0; v < 3; ++v) {
      double sum = 0, squares = 0;
      for (const auto& fact : facts) sum += fact.sums[v];
      for (const auto& fact : facts) squares += std::pow(fact.sums[v] - sum / count * fact.count, 2);
      // 1e6 leaves the two-pass sum itself 10 digits of the deviations.
      CHECK(means.means()[v] == doctest::Approx(sum / count).epsilon(1e-13));
      CHECK(means.standard_errors()[v] == doctest::Approx(std::sqrt(37.0 / 36 * squares) / count).epsilon(1e-9));
    }
  }
}

TEST_CASE("one fact has a mean but no error") {
  ClusterMeans means(2, 0);
  means.add(2, std::vector<double>{3, 5}, {});
  CHECK(means.means() == std::vector<double>{1.5, 2.5});
  CHECK(std::isnan(means.standard_errors()[0]));
}

TEST_CASE("equal facts have no error at all") {
  ClusterMeans means(1, 0);
  for (int i = 0; i < 1000; ++i) means.add(1, std::vector<double>{0.1}, {});
  CHECK(means.means()[0] == doctest::Approx(0.1).epsilon(1e-15));
  CHECK(means.standard_errors()[0] < 1e-16);
}

TEST_CASE("a replicate counts each fact as often as its weight says, however many facts wait") {
  for (const std::size_t facts : {1U, 7U, 8U, 9U, 20U}) {
    CAPTURE(facts);
    const auto all = random_facts(facts, 2, 0.5);
    PoissonWeights weights(3, 50);
    ClusterMeans means(2, 50);
    std::vector<double> sums(50), counts(50);
    for (const auto& fact : all) {
      const auto drawn = weights.draw();
      means.add(fact.count, fact.sums, drawn);
      for (std::size_t b = 0; b < 50; ++b) {
        sums[b] += drawn[b] * fact.sums[1];
        counts[b] += drawn[b] * fact.count;
      }
    }
    std::vector<double> expected;
    for (std::size_t b = 0; b < 50; ++b) {
      if (counts[b] > 0) expected.push_back(sums[b] / counts[b]);
    }
    CHECK(means.replicates(1) == expected);
    CHECK(means.replicate_peaks().size() == expected.size());
    CHECK(means.replicates(1) == expected);  // asking changes nothing
  }
}

TEST_CASE("weights are Poisson with mean one, and their seed gives them again") {
  constexpr std::size_t kCount = 200000;
  PoissonWeights weights(11, kCount), again(11, kCount), other(12, kCount);
  const auto drawn = weights.draw();
  std::array<double, 4> shares{};
  double sum = 0;
  for (const auto weight : drawn) {
    sum += weight;
    if (weight < shares.size()) ++shares[weight];
  }
  // Four standard deviations of 200000 draws are below 0.01.
  CHECK(sum / kCount == doctest::Approx(1).epsilon(0.01));
  const std::array expected = {std::exp(-1), std::exp(-1), std::exp(-1) / 2, std::exp(-1) / 6};
  for (std::size_t k = 0; k < shares.size(); ++k) CHECK(std::abs(shares[k] / kCount - expected[k]) < 0.005);
  const auto same = again.draw(), different = other.draw();
  CHECK(std::equal(drawn.begin(), drawn.end(), same.begin()));
  CHECK_FALSE(std::equal(drawn.begin(), drawn.end(), different.begin()));
}

TEST_CASE("percentiles are numpy.percentile's") {
  const std::vector<double> values = {1, 2, 4, 8};
  CHECK(percentile(values, 0) == 1);
  CHECK(percentile(values, 1) == 8);
  CHECK(percentile(values, 0.5) == 3);
  CHECK(percentile(values, 0.025) == doctest::Approx(1.075).epsilon(1e-15));
  CHECK(percentile(values, 0.975) == doctest::Approx(7.7).epsilon(1e-15));
  CHECK(percentile(std::vector<double>{5}, 0.3) == 5);
  const auto interval = percentile_interval({4, 8, 1, 2});
  REQUIRE(interval);
  CHECK(interval->low == percentile(values, 0.025));
  CHECK(interval->high == doctest::Approx(7.7).epsilon(1e-15));
  CHECK_FALSE(percentile_interval({1}));
}

}  // namespace rometrace::cluster_means_test
