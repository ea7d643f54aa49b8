#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <iostream>

namespace {

bool checked_nothing = false;  // of some test case

/// Finds the test cases that checked nothing and did not say why: such a one passes whatever the program does.
struct SilenceListener : doctest::IReporter {
  explicit SilenceListener(const doctest::ContextOptions& /*options*/) {}

  void test_case_start(const doctest::TestCaseData& test) override {
    name_ = test.m_name;
    said_ = false;
  }
  void log_message(const doctest::MessageData& /*message*/) override { said_ = true; }
  void test_case_end(const doctest::CurrentTestCaseStats& test) override {
    if (test.numAssertsCurrentTest > 0 || said_) return;
    std::cerr << "checked nothing: " << name_ << '\n';
    checked_nothing = true;
  }

  void report_query(const doctest::QueryData& /*query*/) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& /*run*/) override {}
  void test_case_reenter(const doctest::TestCaseData& /*test*/) override {}
  void test_case_exception(const doctest::TestCaseException& /*exception*/) override {}
  void subcase_start(const doctest::SubcaseSignature& /*subcase*/) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData& /*assertion*/) override {}
  void test_case_skipped(const doctest::TestCaseData& /*test*/) override {}

 private:
  const char* name_ = "";
  bool said_ = false;
};
REGISTER_LISTENER("silence", 1, SilenceListener);

}  // namespace

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  const int status = context.run();
  if (context.shouldExit()) return status;  // a list of the tests was asked for
  return status == 0 && checked_nothing ? 1 : status;
}
