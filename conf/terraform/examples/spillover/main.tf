# One Auto Scaling group over three zones, as all-Spot fleets have it. Each HAProxy serves from its own zone, takes in servers of the
# others while that is short, and an instance that leaves goes after its last request.
#
# The image (var.ami) has hsdo's package, and HAProxy with a configuration like conf/haproxy.cfg: a server-template of 300 slots. The
# servers' own launch template is yours.

terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 4.59"
    }
  }
}

variable "region" {
  description = "Region of everything here."
  type        = string
  default     = "eu-west-1"
}

variable "subnet_ids" {
  description = "A subnet in each of three zones."
  type        = list(string)

  validation {
    condition     = length(distinct(var.subnet_ids)) == 3
    error_message = "Name three subnets, each in a zone of its own."
  }
}

variable "ami" {
  description = "Image with HAProxy and hsdo, for ARM: the machines below are Graviton."
  type        = string
}

variable "security_group_ids" {
  description = "Security groups of HAProxy and hsdo: users reach HAProxy's ports, and Prometheus alone 6789. The network's default if null."
  type        = list(string)
  default     = null
}

variable "web_launch_template_id" {
  description = "Launch template of the servers behind HAProxy."
  type        = string
}

variable "drain_seconds" {
  description = "The longest time that an instance waits for its last request: SERVER_DRAIN_SECONDS."
  type        = number
  default     = 300

  validation {
    condition     = var.drain_seconds >= 0 && var.drain_seconds <= 6900
    error_message = "drain_seconds is 0 to 6900: AWS waits for two hours at most, unless somebody asks again."
  }
}

provider "aws" {
  region = var.region
}

module "hsdo" {
  source = "../.."

  table_name            = "web"
  report_table_name     = "web-reports"
  lifecycle_hook_groups = ["web"]
  lifecycle_hook        = "drain"
  name_prefix           = "web-hsdo"
  role_services         = ["ec2"]
}

locals {
  common = {
    DYNAMODB_TABLE_NAME               = module.hsdo.table_name
    DYNAMODB_REPORT_TABLE_NAME        = module.hsdo.report_table_name
    AWS_DEFAULT_REGION                = var.region
    HAPROXY_BACKEND_SERVERS_LIST_SIZE = 300
  }

  # With a weight of 100 the shares of a spillover are fine enough; with 10 they are coarse.
  server = merge(local.common, {
    SERVER_MODE                                   = "aws"
    SERVER_ASG_NAMES                              = "web"
    SERVER_LIFECYCLE_HOOK                         = "drain"
    SERVER_DRAIN_SECONDS                          = var.drain_seconds
    SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT      = 100
    SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT = 10
  })

  # The same for every HAProxy: each finds its zone by itself.
  client = merge(local.common, {
    CLIENT_HAPROXY_BACKEND_LIST = { http-back = { baseName = "mywebapp", serverPort = 80 } }
    CLIENT_DEDICATED_ZONE       = true
    CLIENT_ZONE_NAMES           = "auto"
    CLIENT_SPILL_BELOW          = 70
  })

  # The package's units stay off until somebody turns them on.
  user_data = {
    for name, settings in { server = local.server, client = local.client } : name => "#cloud-config\n${yamlencode({
      write_files = [{ path = "/etc/hsdo/env.yaml", content = yamlencode(settings) }]
      runcmd      = [["systemctl", "enable", "--now", "hsdo-${name}"]]
    })}"
  }
}

resource "aws_autoscaling_group" "web" {
  name                = "web"
  min_size            = 3
  max_size            = 90
  vpc_zone_identifier = var.subnet_ids

  mixed_instances_policy {
    instances_distribution {
      on_demand_percentage_above_base_capacity = 0
      spot_allocation_strategy                 = "price-capacity-optimized"
    }

    launch_template {
      launch_template_specification {
        launch_template_id = var.web_launch_template_id
        version            = "$Latest"
      }
    }
  }
}

# Not initial_lifecycle_hook: a change of that makes Terraform replace the whole group.
resource "aws_autoscaling_lifecycle_hook" "drain" {
  name                   = "drain"
  autoscaling_group_name = aws_autoscaling_group.web.name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  # Above the drain: hsdo answers first. If nobody does, AWS goes on by itself.
  heartbeat_timeout = var.drain_seconds + 300
  default_result    = "CONTINUE"
}

resource "aws_launch_template" "hsdo" {
  for_each = { server = "t4g.nano", client = "c7g.large" }

  name_prefix   = "web-hsdo-${each.key}-"
  image_id      = var.ami
  instance_type = each.value
  user_data     = base64encode(local.user_data[each.key])

  iam_instance_profile {
    name = module.hsdo.instance_profile_names[each.key]
  }

  vpc_security_group_ids = var.security_group_ids

  metadata_options {
    http_tokens = "required"
  }
}

# Two servers, of which one leads; and the load balancers, in all three zones.
resource "aws_autoscaling_group" "hsdo" {
  for_each = { server = 2, client = 6 }

  name                = each.key == "server" ? "web-hsdo-server" : "web-haproxy"
  min_size            = each.value
  max_size            = each.value
  vpc_zone_identifier = var.subnet_ids

  launch_template {
    id      = aws_launch_template.hsdo[each.key].id
    version = aws_launch_template.hsdo[each.key].latest_version
  }

  # A new setting reaches the machines one by one.
  instance_refresh {
    strategy = "Rolling"
  }

  # Rights and tables come before the machines, and go after them.
  depends_on = [module.hsdo]
}

output "user_data" {
  description = "What machines are told at start, by role."
  value       = local.user_data
}
