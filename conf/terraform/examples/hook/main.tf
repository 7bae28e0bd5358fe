# A group whose instances are let go after their last request. SERVER_LIFECYCLE_HOOK=drain, SERVER_DRAIN_SECONDS=300.
module "hsdo" {
  source = "../.."

  table_name            = "web"
  report_table_name     = "web-reports"
  lifecycle_hook_groups = ["web-*"]
}

resource "aws_autoscaling_lifecycle_hook" "drain" {
  name                   = "drain"
  autoscaling_group_name = "web-a"
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"

  # Above SERVER_DRAIN_SECONDS: hsdo answers first. If nobody does, AWS goes on by itself.
  heartbeat_timeout = 600
  default_result    = "CONTINUE"
}
